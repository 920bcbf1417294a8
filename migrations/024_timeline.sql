-- Which history of the outbox a process has read. A server that is promoted may lack the
-- newest commits of the one before it, and then gives ids, revisions and versions a second
-- time. So whatever a process keeps in memory counts only on the timeline that it read it
-- on, and the fences below refuse it on any other. A token tells apart two servers that
-- were promoted to the same timeline.
CREATE TABLE walhook.timeline (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    noted_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    system_id   text NOT NULL,
    number      integer NOT NULL,
    token       text NOT NULL DEFAULT gen_random_uuid()::text,
    position    bigint,
    first_event bigint NOT NULL DEFAULT 1
);
COMMENT ON TABLE walhook.timeline IS 'a row is a timeline of the outbox''s server, from when walhook first met it; the newest is the present one';
COMMENT ON COLUMN walhook.timeline.position IS 'the newest position that this timeline began with';
COMMENT ON COLUMN walhook.timeline.first_event IS 'no event below it is appended on this timeline: an earlier one may have used the id';

-- Exact from the first moment after a promotion, which pg_control_checkpoint() is not.
CREATE FUNCTION walhook.timeline_now() RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer
$$;

CREATE FUNCTION walhook.on_timeline(mine text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT t.token = mine AND t.number = walhook.timeline_now() FROM walhook.timeline t ORDER BY t.id DESC LIMIT 1), false)
$$;

-- Says which timeline this is, and notes one that is new. Its events begin two partitions
-- of the event log further on: the newest ids that were given are not known here, and one
-- partition may have been begun meanwhile.
CREATE FUNCTION walhook.note_timeline(OUT token text, OUT first_event bigint, OUT noted boolean, OUT before text, OUT present text)
LANGUAGE plpgsql AS $$
DECLARE
    last   walhook.timeline;
    system text := (SELECT c.system_identifier::text FROM pg_control_system() c);
BEGIN
    noted := false;
    LOOP
        SELECT * INTO last FROM walhook.timeline t ORDER BY t.id DESC LIMIT 1;
        EXIT WHEN last.system_id = system AND last.number = walhook.timeline_now();
        IF NOT noted THEN -- others may be noting it: look again
            LOCK TABLE walhook.timeline IN SHARE ROW EXCLUSIVE MODE;
            noted := true;
            before := format('%s of system %s', last.number, last.system_id);
            CONTINUE;
        END IF;
        INSERT INTO walhook.timeline (system_id, number, position, first_event)
        SELECT system, walhook.timeline_now(), p.id, (greatest(p.next_event_id, last.first_event, 1) / 16777216 + 2) * 16777216
        FROM (VALUES (1)) AS one LEFT JOIN (SELECT id, next_event_id FROM walhook.position ORDER BY id DESC LIMIT 1) AS p ON true;
    END LOOP;
    token := last.token;
    first_event := last.first_event;
    present := format('%s of system %s', last.number, last.system_id);
END $$;

-- Whether nothing was stored since the server failed over: what was stored on the one
-- before it may be missing.
CREATE FUNCTION walhook.begins_timeline(newest bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT t.number <> walhook.timeline_now() OR t.position = newest FROM walhook.timeline t ORDER BY t.id DESC LIMIT 1), false)
$$;

INSERT INTO walhook.timeline (system_id, number)
SELECT c.system_identifier::text, walhook.timeline_now() FROM pg_control_system() c;

-- NULL for a process that is older than this.
ALTER TABLE walhook.sender ADD COLUMN timeline text;
COMMENT ON COLUMN walhook.sender.timeline IS 'the token of the timeline that the sender joined on: ids of senders may be given again on another one';

-- The fences of processes that know their timeline raise WH004 on another one.
CREATE FUNCTION walhook.assert_timeline(mine text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT walhook.on_timeline(mine) THEN
        RAISE EXCEPTION 'the outbox is on another timeline than was read' USING ERRCODE = 'WH004';
    END IF;
END $$;

CREATE FUNCTION walhook.assert_epoch(mine bigint, timeline text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM walhook.assert_timeline(timeline);
    PERFORM walhook.assert_epoch(mine);
END $$;

CREATE FUNCTION walhook.assert_append(mine bigint, webhooks bigint, timeline text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM walhook.assert_timeline(timeline);
    PERFORM walhook.assert_append(mine, webhooks);
END $$;

-- The lease alone: what a sender knows to be delivered is true on every timeline.
CREATE FUNCTION walhook.assert_sender_lease(mine bigint, joined text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM walhook.sender WHERE id = mine AND timeline = joined AND lease_until > clock_timestamp() FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of sender % is over', mine USING ERRCODE = 'WH002';
    END IF;
END $$;

CREATE FUNCTION walhook.assert_sender(mine bigint, joined text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM walhook.assert_sender_lease(mine, joined);
    PERFORM walhook.assert_timeline(joined);
END $$;
