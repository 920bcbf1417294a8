-- Processes older than shared bodies would send an empty body where an event
-- carries another's. They go by the name of this column: from here on they read
-- no event, and append none, until they are replaced.
ALTER TABLE walhook.event RENAME COLUMN revision TO endpoint_revision;

-- Nor do they keep such an event as a dead letter without its body.
ALTER TABLE walhook.dead_letter ADD CONSTRAINT dead_letter_body_not_empty
    CHECK (reason = 'unreadable' OR body IS NULL OR octet_length(body) > 0) NOT VALID;
