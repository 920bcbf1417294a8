-- What a loop that serves many has set aside, so that the rest goes on: an
-- endpoint, an event, a change, a request, a day. docs/OPERATIONS.md, "When one
-- item is bad", says what becomes of each.
CREATE TABLE walhook.set_aside (
    loop     text NOT NULL,
    item     text NOT NULL,
    endpoint bigint,
    reason   text NOT NULL,
    detail   text NOT NULL,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    times    bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (loop, item)
);
CREATE INDEX set_aside_held ON walhook.set_aside (endpoint) WHERE loop = 'endpoints';
COMMENT ON COLUMN walhook.set_aside.endpoint IS 'whose it is, where that is known; with the loop endpoints it is held until it can be read';
COMMENT ON COLUMN walhook.set_aside.detail IS 'the error by its code and place; never a value';

-- How long until an instant, null for none. One that is no instant, such as
-- infinity, is far away instead of an error that would stop whoever reads it
-- among others.
CREATE FUNCTION walhook.until(t timestamptz) RETURNS interval LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN t IS NOT NULL THEN
        least(greatest(t, clock_timestamp() - interval '10 years'), clock_timestamp() + interval '10 years') - clock_timestamp() END
$$;

-- An event that cannot be appended stays, for an operator, and is left out.
ALTER TABLE walhook.inbox ADD COLUMN set_aside_at timestamptz;
