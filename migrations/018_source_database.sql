-- A database may be renamed: by its OID what was changed in it is found all the
-- same. 0 where that was not noted.
ALTER TABLE walhook.source_change ADD COLUMN database_oid oid NOT NULL DEFAULT 0;
