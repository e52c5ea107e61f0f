DROP FUNCTION journal_keep;
DROP FUNCTION journal_look;
