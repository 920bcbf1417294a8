-- Rows that the publication's row filter hides were sent to nobody; records that belong
-- through them still need their account. Which of the rows here they are is known from
-- the next snapshot on.
ALTER TABLE walhook.owner ADD COLUMN hidden boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN walhook.owner.hidden IS 'the publication''s row filter hides the row: no endpoint got it';
