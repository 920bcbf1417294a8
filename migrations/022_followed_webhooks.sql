-- The publisher follows webhooks by what changed. Whoever changes webhooks raises the
-- version first, which locks it until the transaction ends, and stamps each row with
-- it: so stamps become visible in their order. A process that is older raises the
-- version and stamps nothing; version and stamped then move apart, and the publisher
-- reads all webhooks.
ALTER TABLE walhook.endpoint ADD COLUMN changed_in bigint NOT NULL DEFAULT 0;
CREATE INDEX endpoint_changed_in ON walhook.endpoint (changed_in) WHERE webhook <> 'account';
COMMENT ON COLUMN walhook.endpoint.changed_in IS 'the version of the webhooks that last changed what routing reads of it';

ALTER TABLE walhook.webhooks_version
    ADD COLUMN stamped   bigint NOT NULL DEFAULT 0,
    ADD COLUMN forgotten bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN walhook.webhooks_version.stamped IS 'how many raises of the version stamped the rows that they changed';
COMMENT ON COLUMN walhook.webhooks_version.forgotten IS 'rows that were stamped up to this version may be gone: who has not followed so far reads all webhooks';
