-- The device that enabled the second factor: while it is new, any other one can undo it.
ALTER TABLE second_factors ADD COLUMN enabled_by uuid;
