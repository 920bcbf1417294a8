-- Whose a record is may be unknown: it was changed while the stream lacked the
-- column that says so.
ALTER TABLE walhook.owner
    ADD COLUMN unknown boolean NOT NULL DEFAULT false;
CREATE INDEX owner_unknown ON walhook.owner (schema) WHERE unknown;
COMMENT ON COLUMN walhook.owner.unknown IS 'account is the one that it was last sent to; whose it is now is not known';

-- What walhook changed on the source, for teardown to undo.
CREATE TABLE walhook.source_change (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    system_id   text NOT NULL,
    database    text NOT NULL,
    kind        text NOT NULL CONSTRAINT source_change_kind_known CHECK (kind IN ('publication', 'identity')),
    relation    oid NOT NULL,
    name        text NOT NULL,
    before      text NOT NULL,
    after       text NOT NULL,
    undone_at   timestamptz
);
COMMENT ON COLUMN walhook.source_change.relation IS 'of an identity the table, of a publication the publication';
COMMENT ON COLUMN walhook.source_change.name IS 'as SQL takes it, at the time';
COMMENT ON COLUMN walhook.source_change.before IS 'of an identity d, f, n, or i and the index; of a publication '''', where there was none';
