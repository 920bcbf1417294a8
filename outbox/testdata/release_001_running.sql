-- What processes of release 1 say, with values in place of parameters.
BEGIN;
SELECT walhook.assert_epoch(4);
-- refused: an event, and so the whole append. Until this publisher is replaced, it stores nothing more, and loses nothing.
INSERT INTO walhook.event (id, endpoint, revision, record, webhook_id, schema, type, committed_at, appended_at, body)
VALUES (5, 1, 3, 'dids:1', 'evt_00000000016B3750_1', 'dids', 'update', now(), now(), '{}');
ROLLBACK;
BEGIN;
SELECT walhook.assert_epoch(4);
INSERT INTO walhook.owner (schema, key, account, deleted_at)
SELECT schema, key, account, CASE WHEN deleted THEN clock_timestamp() END
FROM unnest('{dids}'::text[], '{1}'::text[], '{7}'::text[], '{f}'::bool[]) AS w(schema, key, account, deleted)
ON CONFLICT (schema, key) DO UPDATE SET account = excluded.account, deleted_at = excluded.deleted_at;
UPDATE walhook.endpoint e SET ended_at = CASE WHEN false THEN clock_timestamp() ELSE ended_at END,
    revision = revision + 1, changed_at = clock_timestamp()
WHERE account = '9' RETURNING id, revision;
INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id)
VALUES (4, '0/16B3750', 1, 741, '0/16B3790', 6);
COMMIT;
-- refused: a new URL. Until this publisher is replaced, it stores nothing more, and loses nothing.
INSERT INTO walhook.endpoint AS e (account, own_secret, secret, url, state, reason, feed_from, ended_at)
VALUES ('7', false, 'whsec_x', 'https://c.example.com/', 'active', '', 0, NULL)
ON CONFLICT (account) DO UPDATE SET url = excluded.url RETURNING id, revision;
SELECT account, id, revision, coalesce(url, ''), CASE WHEN own_secret THEN secret ELSE '' END FROM walhook.endpoint
WHERE state <> 'cleared' AND ended_at IS NULL;
WITH taken AS (
    DELETE FROM walhook.inbox WHERE id IN (SELECT id FROM walhook.inbox ORDER BY id LIMIT 200 FOR UPDATE SKIP LOCKED) RETURNING *)
SELECT account, above, webhook_id, record, schema, type, body, born_at FROM taken ORDER BY id;
INSERT INTO walhook.sender (name, process, lease_until) VALUES ('db2/18', '', clock_timestamp() + interval '15 seconds') RETURNING id;
UPDATE walhook.sender SET lease_until = clock_timestamp() + interval '15 seconds' WHERE id = 1 AND lease_until > clock_timestamp();
SELECT id, account, revision, coalesce(url, ''), state, reason, secret,
    CASE WHEN previous_until > clock_timestamp() THEN previous_secret END, feed_from, expire_before, ordering
FROM walhook.endpoint WHERE changed_at > now() - interval '1 minute' AND id % 32 = ANY (SELECT s.id FROM walhook.shard s WHERE s.sender = 1);
-- refused: a stretch of the log, whose events may carry the body of another.
SELECT id, endpoint, revision, record, webhook_id, schema, type, committed_at, CASE WHEN wanted THEN body END
FROM (SELECT e.*, sum(octet_length(body)) OVER (ORDER BY id) AS before
    FROM (SELECT e.*, true AS wanted FROM walhook.event e WHERE e.id > 0 AND e.id <= 100 ORDER BY e.id LIMIT 10) e) t;
-- refused: events that are due again, for the same reason.
SELECT t.id, t.endpoint, t.revision, t.record, t.webhook_id, t.schema, t.type, t.committed_at, t.body, t.attempts
FROM (SELECT e.*, r.attempts, r.next_at FROM walhook.retry r JOIN walhook.event e ON e.id = r.event_id WHERE r.endpoint = 1) t;
BEGIN;
SELECT walhook.assert_sender(1);
INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
SELECT * FROM unnest(ARRAY[now()], '{1}'::bigint[], '{4}'::bigint[], '{3}'::bigint[], '{1}'::int[], ARRAY['5 ms'::interval],
    '{200}'::int[], '{delivered}'::text[], '{2xx}'::text[], ARRAY['']) ON CONFLICT DO NOTHING;
INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
SELECT e.endpoint, e.id, e.record, e.webhook_id, e.schema, e.type, e.committed_at, 1, '4xx', octet_length(e.body), e.body
FROM walhook.event e WHERE e.id = 2;
DELETE FROM walhook.retry r USING unnest('{1}'::bigint[], '{2}'::bigint[]) AS d(endpoint, event_id)
WHERE r.endpoint = d.endpoint AND r.event_id = d.event_id;
INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason)
SELECT endpoint, event_id, record, attempts, clock_timestamp() + delay, reason
FROM unnest('{1}'::bigint[], '{5}'::bigint[], '{dids:1}'::text[], '{1}'::int[], ARRAY['5 s'::interval], '{5xx}'::text[])
    AS t(endpoint, event_id, record, attempts, delay, reason)
ON CONFLICT (endpoint, event_id) DO UPDATE SET attempts = excluded.attempts, next_at = excluded.next_at, reason = excluded.reason;
UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'walhook', reason = '410', revision = revision + 1, changed_at = clock_timestamp()
WHERE id = 1 AND revision = 3 AND state = 'active' RETURNING account, reason;
UPDATE walhook.shard SET tail = 4 WHERE sender = 1;
COMMIT;
UPDATE walhook.endpoint SET expire_before = 1, revision = revision + 1, changed_at = clock_timestamp() WHERE id = 3 AND expire_before < 1;
DELETE FROM walhook.sender WHERE id = 1;
