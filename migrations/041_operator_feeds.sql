-- An operator's feed is an endpoint of no account: it gets every account's events.
ALTER TABLE walhook.endpoint
    ADD CONSTRAINT endpoint_feed_is_pushed CHECK (account <> '' OR webhook = 'account' OR NOT include_subaccounts AND delivery = 'realtime');
CREATE UNIQUE INDEX endpoint_feed_once ON walhook.endpoint (name) WHERE account = '' AND webhook <> 'account' AND name <> '' AND deleted_at IS NULL;
COMMENT ON COLUMN walhook.endpoint.account IS ''''' is an operator''s feed';

ALTER TABLE walhook.event ADD COLUMN account text NOT NULL DEFAULT '';
COMMENT ON COLUMN walhook.event.account IS 'whose event a feed gets; '''' where the endpoint''s account says it';
ALTER TABLE walhook.dead_letter ADD COLUMN account text NOT NULL DEFAULT '';
