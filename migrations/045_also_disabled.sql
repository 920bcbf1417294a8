-- An operator's word lies over what the account or walhook had disabled. Its end gives
-- that back, and does not enable what was never the operator's to enable.
ALTER TABLE walhook.endpoint
    ADD COLUMN also_disabled_by text NOT NULL DEFAULT '' CONSTRAINT endpoint_also_disabled_by_known CHECK (also_disabled_by IN ('', 'walhook', 'account')),
    ADD COLUMN also_disable_reason text NOT NULL DEFAULT '';
COMMENT ON COLUMN walhook.endpoint.also_disabled_by IS 'who has it disabled once the operator''s word ends; of use while disabled_by is operator';
COMMENT ON COLUMN walhook.endpoint.also_disable_reason IS 'why also_disabled_by has';
