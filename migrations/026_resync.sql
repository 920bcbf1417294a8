-- The present state of an account's records, for one endpoint. The publisher works it off
-- in transactions that append events and store how far it is.
CREATE TABLE walhook.resync (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint   bigint NOT NULL,
    kind       text NOT NULL CONSTRAINT resync_kind CHECK (kind IN ('insert', 'update')),
    schema     text,
    total      bigint NOT NULL DEFAULT 0,
    sent       bigint NOT NULL DEFAULT 0,
    numbered   bigint NOT NULL DEFAULT 0,
    timeline   text NOT NULL DEFAULT '',
    at_schema  text NOT NULL DEFAULT '',
    at_key     bytea[],
    asked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    done_at    timestamptz,
    reason     text NOT NULL DEFAULT '',
    CONSTRAINT resync_reason_ends CHECK (reason = '' OR done_at IS NOT NULL)
);
CREATE UNIQUE INDEX resync_open ON walhook.resync (endpoint) WHERE done_at IS NULL;
CREATE INDEX resync_endpoint ON walhook.resync (endpoint, id);
COMMENT ON COLUMN walhook.resync.schema IS 'the only one whose records are sent; NULL for all';
COMMENT ON COLUMN walhook.resync.total IS 'how many records there were when it began; 0 before';
COMMENT ON COLUMN walhook.resync.numbered IS 'the last number that a webhook-id has: none is given twice';
COMMENT ON COLUMN walhook.resync.timeline IS 'of the outbox, when numbered was stored';
COMMENT ON COLUMN walhook.resync.at_key IS 'the key of the last row of at_schema that is passed, as the source''s texts; NULL before the first';
COMMENT ON COLUMN walhook.resync.reason IS 'why it ended before its end';

-- A webhook that starts with the present state whenever its URL is set.
ALTER TABLE walhook.endpoint ADD COLUMN initial_state boolean NOT NULL DEFAULT false;
