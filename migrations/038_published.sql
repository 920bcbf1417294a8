-- A publication that was altered and altered back looks as before. The rows of the system
-- catalog by which it publishes do not.
ALTER TABLE walhook.source ADD COLUMN visible_published text;
COMMENT ON COLUMN walhook.source.visible_published IS 'by which rows of its system catalog the source published the tables at visible_lsn; NULL: unknown';
