-- The ordering is the account's: each of its webhooks has it, also one that it makes later.
CREATE TABLE walhook.account_ordering (
    account  text PRIMARY KEY CONSTRAINT account_ordering_named CHECK (account <> ''),
    ordering text NOT NULL CONSTRAINT account_ordering_known CHECK (ordering IN ('none', 'strict'))
);
COMMENT ON TABLE walhook.account_ordering IS 'what a new webhook of the account takes as its ordering; no row: record';

-- Until now it was that of the account's own URL alone.
INSERT INTO walhook.account_ordering (account, ordering)
SELECT account, ordering FROM walhook.endpoint
WHERE webhook = 'account' AND account <> '' AND ended_at IS NULL AND deleted_at IS NULL AND ordering IN ('none', 'strict');

UPDATE walhook.endpoint e SET ordering = o.ordering,
    revision = revision + (revision < 9223372036854775807)::int, changed_at = clock_timestamp()
FROM walhook.account_ordering o
WHERE o.account = e.account AND e.ordering <> o.ordering AND e.ended_at IS NULL AND e.deleted_at IS NULL;

UPDATE walhook.retry r SET next_at = clock_timestamp()
FROM walhook.endpoint e JOIN walhook.account_ordering o ON o.account = e.account
WHERE r.endpoint = e.id AND r.next_at IS NULL AND e.ordering = 'none' AND e.ended_at IS NULL AND e.deleted_at IS NULL;
