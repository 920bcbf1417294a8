-- Who set a URL, what a hold was made for, and which accounts have ended.

ALTER TABLE walhook.endpoint
    ADD COLUMN set_by text NOT NULL DEFAULT '';
CREATE INDEX endpoint_set_by ON walhook.endpoint (set_by) WHERE set_by <> '';
COMMENT ON COLUMN walhook.endpoint.set_by IS 'the account above whose token set the URL: its holds count too; '''' where the account itself or an operator did';

ALTER TABLE walhook.hold
    ADD COLUMN endpoint bigint;
COMMENT ON COLUMN walhook.hold.endpoint IS 'the disabled endpoint that it was made for; NULL for a host or an account that an operator named';

-- An account that ended has no tokens and webhooks, and gets none until one of
-- its id begins.
CREATE TABLE walhook.ended_account (
    account  text PRIMARY KEY CONSTRAINT ended_account_named CHECK (account <> ''),
    ended_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ended_account_ended_at ON walhook.ended_account (ended_at);
INSERT INTO walhook.ended_account (account, ended_at)
SELECT account, ended_at FROM walhook.endpoint WHERE webhook = 'account' AND ended_at IS NOT NULL AND deleted_at IS NULL;

-- What was made while its account was ending.
DELETE FROM walhook.token WHERE account IN (SELECT account FROM walhook.ended_account);
UPDATE walhook.endpoint SET ended_at = clock_timestamp(), revision = revision + 1, changed_at = clock_timestamp()
WHERE webhook <> 'account' AND ended_at IS NULL AND deleted_at IS NULL
    AND account IN (SELECT account FROM walhook.ended_account);
