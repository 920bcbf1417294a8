-- What an operator disabled stays so whatever the account does: a hold outlives
-- the webhook that it was made for.
CREATE TABLE walhook.hold (
    account text NOT NULL CONSTRAINT hold_account_named CHECK (account <> ''),
    host    text NOT NULL,
    reason  text NOT NULL CONSTRAINT hold_has_reason CHECK (reason <> ''),
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account, host)
);
COMMENT ON COLUMN walhook.hold.host IS 'in its normal form; '''' is every host';

-- As near to the normal form as SQL comes.
INSERT INTO walhook.hold (account, host, reason)
SELECT account, coalesce(rtrim(lower(substring(url FROM '^[a-zA-Z]+://(?:[^/@]*@)?(\[[^]]*\]|[^/:?#]*)')), '.'), ''), max(disabled_reason)
FROM walhook.endpoint WHERE disabled_by = 'operator' AND deleted_at IS NULL AND coalesce(url, '') <> ''
GROUP BY 1, 2;
DELETE FROM walhook.hold WHERE host = '';
