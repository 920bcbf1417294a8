-- Webhooks besides the account's own URL: an account may have any number of
-- endpoints, each with settings of its own.

ALTER TABLE walhook.endpoint
    ADD COLUMN webhook               text NOT NULL DEFAULT 'account',
    ADD COLUMN name                  text NOT NULL DEFAULT '',
    ADD COLUMN http_verb             text NOT NULL DEFAULT 'post' CONSTRAINT endpoint_http_verb_known
                                     CHECK (http_verb IN ('post', 'get', 'put')),
    ADD COLUMN hook                  text NOT NULL DEFAULT 'records' CONSTRAINT endpoint_hook_named CHECK (hook <> ''),
    ADD COLUMN object_type           text NOT NULL DEFAULT '',
    ADD COLUMN object_action         text NOT NULL DEFAULT '',
    ADD COLUMN schemas               text[] NOT NULL DEFAULT '{}',
    ADD COLUMN types                 text[] NOT NULL DEFAULT '{}',
    ADD COLUMN target                text NOT NULL DEFAULT '',
    ADD COLUMN target_id             text NOT NULL DEFAULT '',
    ADD COLUMN format                text NOT NULL DEFAULT '' CONSTRAINT endpoint_format_known
                                     CHECK (format IN ('', 'envelope', 'json', 'form')),
    ADD COLUMN retries               integer CONSTRAINT endpoint_retries_in_range CHECK (retries BETWEEN 0 AND 10),
    ADD COLUMN rate_limit            double precision NOT NULL DEFAULT 0 CONSTRAINT endpoint_rate_limit_positive
                                     CHECK (rate_limit >= 0),
    ADD COLUMN custom_data           json,
    ADD COLUMN include_subaccounts   boolean NOT NULL DEFAULT false,
    ADD COLUMN include_internal_legs boolean NOT NULL DEFAULT false,
    ADD COLUMN delivery              text NOT NULL DEFAULT 'realtime' CONSTRAINT endpoint_delivery_known
                                     CHECK (delivery IN ('realtime', 'daily')),
    ADD COLUMN daily_at              time NOT NULL DEFAULT '00:00',
    ADD COLUMN daily_zone            text NOT NULL DEFAULT 'UTC',
    ADD COLUMN created_at            timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN deleted_at            timestamptz,
    ADD CONSTRAINT endpoint_custom_data_is_object CHECK (json_typeof(custom_data) = 'object'),
    DROP CONSTRAINT endpoint_one_per_account,
    DROP CONSTRAINT endpoint_disabled_by_known,
    DROP CONSTRAINT endpoint_operator_has_reason,
    ADD CONSTRAINT endpoint_disabled_by_known CHECK (disabled_by IN ('', 'walhook', 'operator', 'account')),
    ADD CONSTRAINT endpoint_word_has_reason CHECK ((disabled_by IN ('operator', 'account')) = (disabled_reason <> '')),
    ADD CONSTRAINT endpoint_webhook_once UNIQUE (account, webhook),
    ADD CONSTRAINT endpoint_target_whole CHECK ((target = '') = (target_id = '')),
    ADD CONSTRAINT endpoint_own_is_plain CHECK (webhook <> 'account' OR deleted_at IS NULL AND custom_data IS NULL
        AND hook = 'records' AND delivery = 'realtime'),
    ADD CONSTRAINT endpoint_deleted_is_cleared CHECK (deleted_at IS NULL OR state = 'cleared');
-- Only now: as a default of the new column it would rewrite the table.
ALTER TABLE walhook.endpoint ALTER COLUMN created_at SET DEFAULT clock_timestamp();
COMMENT ON COLUMN walhook.endpoint.webhook IS 'its id in the API; ''account'' is the one that the account table''s URL column sets';
COMMENT ON COLUMN walhook.endpoint.disabled_by IS 'the word of an operator, or of the account through the API, holds on while there is no URL that can be used';
COMMENT ON COLUMN walhook.endpoint.disabled_reason IS 'the operator''s or the account''s, for when there is a URL again';
COMMENT ON COLUMN walhook.endpoint.hook IS '''records'' is the record feed, ''all'' every event; otherwise the name of an event';
COMMENT ON COLUMN walhook.endpoint.object_type IS 'filter on the type of objects and notifications; '''' is any';
COMMENT ON COLUMN walhook.endpoint.schemas IS 'filter on the schemas of the record feed; empty is all';
COMMENT ON COLUMN walhook.endpoint.types IS 'filter on insert, update and delete; empty is all';
COMMENT ON COLUMN walhook.endpoint.target IS 'number, extension, ringGroup or queue that it is bound to; '''' is none';
COMMENT ON COLUMN walhook.endpoint.format IS ''''' is what the event''s hook says';
COMMENT ON COLUMN walhook.endpoint.retries IS 'null is the whole schedule';
COMMENT ON COLUMN walhook.endpoint.rate_limit IS 'attempts a second; 0 is no limit';

-- An account looks at its newest attempts.
CREATE INDEX attempt_endpoint_at ON walhook.attempt (endpoint, at);

-- Raised by whoever creates, edits or deletes a webhook, in the transaction that
-- does it. A publisher reads it before it routes, and the webhooks when it moved.
CREATE TABLE walhook.webhooks_version (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT webhooks_version_is_one_row CHECK (singleton),
    version   bigint NOT NULL DEFAULT 0
);
INSERT INTO walhook.webhooks_version DEFAULT VALUES;

ALTER TABLE walhook.event
    ADD COLUMN format text NOT NULL DEFAULT '';
COMMENT ON COLUMN walhook.event.format IS 'what the event''s hook says; '''' for records and results. The endpoint''s own comes before it';
ALTER TABLE walhook.dead_letter
    ADD COLUMN format text NOT NULL DEFAULT '';

-- An event for one endpoint alone: a replayed change keeps its id.
ALTER TABLE walhook.inbox
    ADD COLUMN endpoint bigint,
    ADD COLUMN format   text NOT NULL DEFAULT '',
    DROP CONSTRAINT inbox_webhook_id_is_no_change,
    ADD CONSTRAINT inbox_webhook_id_is_no_change CHECK (
        webhook_id ~ '^[a-z]+_[0-9a-zA-Z_-]+$' AND (webhook_id !~ '^evt_' OR endpoint IS NOT NULL));

-- Who may use the API for which account. Only a hash of the token is kept.
CREATE TABLE walhook.token (
    hash        bytea PRIMARY KEY,
    id          text NOT NULL CONSTRAINT token_id_once UNIQUE,
    account     text NOT NULL CONSTRAINT token_account_named CHECK (account <> ''),
    subaccounts boolean NOT NULL,
    name        text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX token_account ON walhook.token (account);

-- Events that somebody asked to be sent again. The publisher works through it a
-- chunk at a time; cursor is how far it is.
CREATE TABLE walhook.request (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint    bigint NOT NULL,
    since       timestamptz,
    webhook_ids text[],
    rate        double precision NOT NULL CONSTRAINT request_rate_positive CHECK (rate > 0),
    until_id    bigint NOT NULL,
    cursor      bigint NOT NULL DEFAULT 0,
    sent        bigint NOT NULL DEFAULT 0,
    total       bigint NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at     timestamptz,
    reason      text NOT NULL DEFAULT '',
    CONSTRAINT request_asks_for_something CHECK ((since IS NULL) <> (webhook_ids IS NULL)),
    CONSTRAINT request_reason_ends CHECK (reason = '' OR done_at IS NOT NULL)
);
CREATE INDEX request_open ON walhook.request (next_at) WHERE done_at IS NULL;
CREATE INDEX request_endpoint ON walhook.request (endpoint, id);
COMMENT ON COLUMN walhook.request.since IS 'of the events'' commit';
COMMENT ON COLUMN walhook.request.total IS 'how many there were to send when it was asked for, as far as that was counted';
COMMENT ON COLUMN walhook.request.reason IS 'why it ended before its end';

-- A replayed event is another row with the same webhook_id; the newest one says
-- how it stands.
ALTER TABLE walhook.event
    ADD COLUMN replayed boolean NOT NULL DEFAULT false;
CREATE INDEX event_replayed ON walhook.event (endpoint, webhook_id, id) WHERE replayed;

-- The columns of accounts that the catalog's rules ask for, in the order of
-- their names, each as JSON; '' for one that is not known.
CREATE TABLE walhook.account_column (
    account    text PRIMARY KEY,
    columns    text[] NOT NULL,
    deleted_at timestamptz
);
CREATE INDEX account_column_deleted_at ON walhook.account_column (deleted_at) WHERE deleted_at IS NOT NULL;

-- The day that each webhook with daily delivery counts for.
CREATE TABLE walhook.daily (
    endpoint bigint PRIMARY KEY,
    day      date NOT NULL,
    since    timestamptz NOT NULL
);
COMMENT ON COLUMN walhook.daily.day IS 'the last day that has ended; the one that counts comes after it';
COMMENT ON COLUMN walhook.daily.since IS 'when that one ended';

-- What they counted and have not sent.
CREATE TABLE walhook.daily_count (
    endpoint bigint NOT NULL,
    period   date NOT NULL,
    account  text NOT NULL,
    kin      bytea NOT NULL,
    hook     text NOT NULL,
    type     text NOT NULL,
    format   text NOT NULL,
    n        bigint NOT NULL,
    head     bytea NOT NULL,
    tail     bytea NOT NULL,
    PRIMARY KEY (endpoint, period, account, kin)
) WITH (fillfactor = 50);
COMMENT ON COLUMN walhook.daily_count.period IS 'the last day that had ended when it was counted';
COMMENT ON COLUMN walhook.daily_count.kin IS 'a hash of what the counted occurrences have in common';
COMMENT ON COLUMN walhook.daily_count.head IS 'the body is head, n and tail';

-- The days that have ended: one row is one day of one webhook, sent once.
CREATE TABLE walhook.daily_run (
    endpoint   bigint NOT NULL,
    day        date NOT NULL,
    began_at   timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL,
    zone       text NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    ordinal    bigint NOT NULL,
    late       boolean,
    sent_at    timestamptz,
    PRIMARY KEY (endpoint, day),
    CONSTRAINT daily_run_covers_something CHECK (began_at <= ended_at),
    CONSTRAINT daily_run_sent_is_decided CHECK (sent_at IS NULL OR late IS NOT NULL)
);
CREATE INDEX daily_run_unsent ON walhook.daily_run (day, endpoint) WHERE sent_at IS NULL;
COMMENT ON COLUMN walhook.daily_run.commit_lsn IS 'with ordinal the last change that it covers';
COMMENT ON COLUMN walhook.daily_run.late IS 'decided when sending begins';

ALTER TABLE walhook.account
    ADD COLUMN ended_in pg_lsn;
COMMENT ON COLUMN walhook.account.ended_in IS 'the commit that deleted the account: those above hear of the rest of it';
