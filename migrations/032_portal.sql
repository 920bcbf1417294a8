-- The portal: links that open it once, and the sessions that they become. Of both only
-- a hash is stored. token is the id of the token by which an account made the link, of
-- the account token_account; '' where an operator made it. What was made by a token
-- ends with it, and when its account is not above the session's any more.
CREATE TABLE walhook.portal_link (
    hash          bytea PRIMARY KEY,
    account       text NOT NULL CONSTRAINT portal_link_account_named CHECK (account <> ''),
    token         text NOT NULL DEFAULT '',
    token_account text NOT NULL DEFAULT '',
    made_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL,
    used_at       timestamptz,
    CONSTRAINT portal_link_token_whole CHECK ((token = '') = (token_account = ''))
);
CREATE INDEX portal_link_account ON walhook.portal_link (account);
CREATE INDEX portal_link_expires_at ON walhook.portal_link (expires_at);

CREATE TABLE walhook.portal_session (
    hash          bytea PRIMARY KEY,
    id            text NOT NULL CONSTRAINT portal_session_id_once UNIQUE,
    account       text NOT NULL,
    operator      boolean NOT NULL,
    token         text NOT NULL DEFAULT '',
    token_account text NOT NULL DEFAULT '',
    made_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL,
    CONSTRAINT portal_session_token_whole CHECK ((token = '') = (token_account = '')),
    CONSTRAINT portal_session_of_one CHECK (operator = (account = '') AND NOT (operator AND token <> ''))
);
CREATE INDEX portal_session_account ON walhook.portal_session (account);
CREATE INDEX portal_session_expires_at ON walhook.portal_session (expires_at);
COMMENT ON COLUMN walhook.portal_session.id IS 'names it in the audit, and opens nothing';
COMMENT ON COLUMN walhook.portal_session.operator IS 'entered with the operator''s token, for every account; its hash depends on that token, so it ends when the token changes';
