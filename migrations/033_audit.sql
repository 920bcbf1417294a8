-- Who did what, when, to which account and webhook: written by the transaction of the
-- change itself. It holds no secret, no body and no URL. Maintenance bounds it.
CREATE TABLE walhook.audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL CONSTRAINT audit_actor_named CHECK (actor <> ''),
    action     text NOT NULL CONSTRAINT audit_action_named CHECK (action <> ''),
    account    text NOT NULL DEFAULT '',
    webhook    text NOT NULL DEFAULT '',
    request_id text NOT NULL DEFAULT '',
    detail     text NOT NULL DEFAULT ''
);
CREATE INDEX audit_at ON walhook.audit (at, id);
CREATE INDEX audit_account ON walhook.audit (account, at, id);
CREATE INDEX audit_actor ON walhook.audit (actor, at, id);
CREATE INDEX audit_action ON walhook.audit (action, at, id);
COMMENT ON COLUMN walhook.audit.actor IS 'a token or a session by its id, or an operator and the command';
COMMENT ON COLUMN walhook.audit.account IS 'of whom something was changed; '''' for no single one';

-- To retry now moves changed_at, by which senders find it. It changes nothing that the
-- account or an operator has set, so they are shown the time before.
ALTER TABLE walhook.endpoint ADD COLUMN retry_asked_at timestamptz, ADD COLUMN changed_before timestamptz;
COMMENT ON COLUMN walhook.endpoint.retry_asked_at IS 'the changed_at that the latest request to retry now set';
COMMENT ON COLUMN walhook.endpoint.changed_before IS 'what changed_at was before it';
