ALTER TABLE second_factors DROP COLUMN enabled_by;
