-- The accounts that the source has, so that whoever makes something for one that is
-- not there is told.
CREATE TABLE walhook.known_account (
    id text PRIMARY KEY
);
ALTER TABLE walhook.source ADD COLUMN accounts_known boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN walhook.source.accounts_known IS 'known_account has all of them: a snapshot has written them, and each change since could be followed';
