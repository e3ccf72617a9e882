-- Rows that move with every batch find room for their new version in their own page, also where all rows
-- of a page move in one transaction, as they do with many small runs: with a fillfactor of 70 three of
-- five watermarks wrote a new entry into every index of `runs`. Pages that are there fill as they did.
ALTER TABLE runs SET (fillfactor = 45);
ALTER TABLE producers SET (fillfactor = 45);
