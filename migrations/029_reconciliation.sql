-- What of the source was certainly stored: all that a snapshot of the source sees, taken
-- before the stored position. A row may have changed since only if its xmin is not below
-- visible_xmin, the oldest transaction that the snapshot knew to run.
ALTER TABLE walhook.source
    ADD COLUMN visible_lsn   pg_lsn,
    ADD COLUMN visible_xmin  bigint,
    ADD COLUMN visible_event bigint;
COMMENT ON COLUMN walhook.source.visible_lsn IS 'the end of the WAL when the snapshot was taken; it is stored';
COMMENT ON COLUMN walhook.source.visible_event IS 'events of that transaction and of later ones have this id or a higher one; NULL: unknown';

ALTER TABLE walhook.gap
    ADD COLUMN other_history boolean NOT NULL DEFAULT false,
    ADD COLUMN reconcile     boolean,
    ADD COLUMN inserts       bigint,
    ADD COLUMN updates       bigint,
    ADD COLUMN deletes       bigint,
    ADD COLUMN missed        bigint,
    ADD COLUMN note          text,
    ADD COLUMN reconciled_at timestamptz;
COMMENT ON COLUMN walhook.gap.other_history IS 'the source is not the one that was read before, or not in a later state of it';
COMMENT ON COLUMN walhook.gap.reconcile IS 'whether endpoints are told what they missed; NULL until setup accepts the gap';
COMMENT ON COLUMN walhook.gap.inserts IS 'how many were appended so far, as inserts, updates and deletes; a move is a delete and an insert';
COMMENT ON COLUMN walhook.gap.missed IS 'how many there are to append';
COMMENT ON COLUMN walhook.gap.note IS 'what is missed for good, and which schemas could not be compared';
COMMENT ON COLUMN walhook.gap.reconciled_at IS 'all of them are appended';

-- What endpoints missed in a gap, until the publisher has appended it.
CREATE TABLE walhook.missed (
    gap         bigint NOT NULL,
    n           bigint NOT NULL,
    type        text NOT NULL CONSTRAINT missed_type_known CHECK (type IN ('insert', 'update', 'delete')),
    schema      text NOT NULL,
    key         text NOT NULL,
    account     text NOT NULL,
    above       text,
    about       text NOT NULL DEFAULT '',
    own         boolean NOT NULL,
    body        bytea NOT NULL,
    masked      bytea,
    PRIMARY KEY (gap, n)
);
COMMENT ON TABLE walhook.missed IS 'what endpoints missed in a gap and the publisher has not appended yet, in the order in which it does';
COMMENT ON COLUMN walhook.missed.above IS 'the parent account of one that is gone';
COMMENT ON COLUMN walhook.missed.about IS 'the account whose endpoints get the body; others get masked';
COMMENT ON COLUMN walhook.missed.own IS 'the account''s own endpoint gets it: its URL is not new';
