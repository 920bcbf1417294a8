-- How the source's catalog described its tables, for changes that are read when
-- the catalog has moved on: a partition that is gone, a key that was replaced.
CREATE TABLE walhook.table_description (
    relation    oid NOT NULL,
    from_lsn    pg_lsn NOT NULL,
    name        text NOT NULL,
    description json NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (relation, from_lsn)
);
COMMENT ON TABLE walhook.table_description IS 'a table of the catalog, or a partition of one, as the source had it from a place in its log on';
COMMENT ON COLUMN walhook.table_description.name IS 'its name there, for people';
