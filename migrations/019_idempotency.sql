-- What was answered to requests that came with an Idempotency-Key, for a day: who
-- sends the same request again gets the same answer, and nothing is made twice.
-- The key itself is not stored, and the answer only encrypted.
CREATE TABLE walhook.idempotency (
    account text NOT NULL CONSTRAINT idempotency_account_named CHECK (account <> ''),
    token   text NOT NULL,
    key     bytea NOT NULL,
    sealed  bytea NOT NULL,
    place   bigint NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account, token, key)
);
CREATE INDEX idempotency_place ON walhook.idempotency (place);
CREATE INDEX idempotency_made_at ON walhook.idempotency (made_at);
COMMENT ON COLUMN walhook.idempotency.account IS 'in which something was made';
COMMENT ON COLUMN walhook.idempotency.token IS 'the id of the token that made it; '''' is the operator''s';
COMMENT ON COLUMN walhook.idempotency.key IS 'a hash of the key';
COMMENT ON COLUMN walhook.idempotency.sealed IS 'a hash of the request and the answer, encrypted under the key itself, the token and the secret key';
COMMENT ON COLUMN walhook.idempotency.place IS 'of its last unit of storage: the distance between first and last bounds what all take';

-- One number for each unit of storage that an answer takes.
CREATE SEQUENCE walhook.idempotency_unit;
