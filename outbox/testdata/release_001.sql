-- An outbox as release 1 leaves it: three accounts, four events of the first.
UPDATE walhook.epoch SET epoch = 4, publisher = 'db1/17';
INSERT INTO walhook.source (state, system_id, timeline, database, slot, publication, publication_oid, catalog, consistent_point)
VALUES ('ready', '7300000000000000001', 1, 'carrier', 'walhook', 'walhook', 16500, 'f00d', '0/16B0000');
INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (4, '0/16B3748', 2, 740, '0/16B3800', 5);
INSERT INTO walhook.endpoint (account, url, state, reason, disabled_by, revision, secret, feed_from) VALUES
    ('7', 'https://a.example.com/', 'active', '', '', 3, 'whsec_c2V2ZW4=', 0),
    ('8', 'https://b.example.com/', 'disabled', 'answered 410 Gone', 'walhook', 2, 'whsec_ZWlnaHQ=', 0),
    ('9', NULL, 'cleared', 'the account has no web hook URL', '', 5, 'whsec_bmluZQ==', 3);
INSERT INTO walhook.account (id, parent) VALUES ('8', '7');
INSERT INTO walhook.owner (schema, key, account) VALUES ('dids', '1', '7');
INSERT INTO walhook.event (id, endpoint, revision, record, webhook_id, schema, type, committed_at, appended_at, body)
SELECT id, 1, 3, 'dids:' || id, 'evt_00000000016B3748_' || id, 'dids', 'insert', now(), now(), '{}' FROM generate_series(1, 4) AS id;
INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail) VALUES
    (now(), 1, 1, 3, 1, '5 ms', 200, 'delivered', '2xx', ''),
    (now(), 1, 2, 3, 1, '5 ms', 500, 'retry', '5xx', 'HTTP 500'),
    (now(), 1, 3, 3, 1, '5 ms', 404, 'dead', '4xx', 'HTTP 404');
INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES (1, 2, 'dids:2', 1, now(), '5xx');
INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
VALUES (1, 3, 'dids:3', 'evt_00000000016B3748_3', 'dids', 'insert', now(), 1, '4xx', 2, '{}');
INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason) VALUES (2, 2, true, 0, false, 0, '410');
INSERT INTO walhook.sender (name, process, lease_until) VALUES ('db1/17', '', now() + interval '1 minute');
UPDATE walhook.shard SET sender = 1, tail = 0;
INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body) VALUES ('7', 'notice_1', 'webhook:8', 'webhook', 'disabled', '{}');
INSERT INTO walhook.unrouted (commit_lsn, ordinal, schema, type, key, reason) VALUES ('0/16B3748', 1, 'faxes', 'insert', '5', 'owner_unknown');
