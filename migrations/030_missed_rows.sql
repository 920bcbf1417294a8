-- Rows of the tables of results and events that are taken: in the source, and either routed
-- or there before the first setup. After a gap the others of its rows are sent. A digest is
-- of the primary key, or of the whole row where the table has none; n such rows are there.
CREATE TABLE walhook.taken_row (
    type   text NOT NULL CONSTRAINT taken_row_type_known CHECK (type IN ('result', 'event')),
    digest bytea NOT NULL,
    n      integer NOT NULL,
    PRIMARY KEY (type, digest)
);
COMMENT ON TABLE walhook.taken_row IS 'rows of the tables of results and events that are not sent after a gap, since they were there before it';

-- Those that were inserted in a gap, until the publisher has appended them.
CREATE TABLE walhook.missed_row (
    gap     bigint NOT NULL,
    n       bigint NOT NULL,
    type    text NOT NULL CONSTRAINT missed_row_type_known CHECK (type IN ('result', 'event')),
    own     boolean NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (gap, n)
);
COMMENT ON TABLE walhook.missed_row IS 'results and events of a gap that the publisher has not appended yet, in the order in which it does';
COMMENT ON COLUMN walhook.missed_row.own IS 'the account''s own endpoint gets it: its URL is not new';
COMMENT ON COLUMN walhook.missed_row.content IS 'what the row says, as JSON';

ALTER TABLE walhook.gap
    ADD COLUMN results bigint,
    ADD COLUMN events  bigint;
COMMENT ON COLUMN walhook.gap.results IS 'how many rows of the table of results were appended so far; events: of the table of events';
