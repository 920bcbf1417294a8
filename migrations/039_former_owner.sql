-- A changed catalog may give a record another account. The former one is told with the
-- record's next change.
ALTER TABLE walhook.owner ADD COLUMN former text;
COMMENT ON COLUMN walhook.owner.former IS 'the account that was last sent the record, where a changed catalog has given it another one since; NULL: account';
CREATE INDEX owner_former ON walhook.owner (schema) WHERE former IS NOT NULL;
