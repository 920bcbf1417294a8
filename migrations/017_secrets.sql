-- Any number of secrets sign while a rotation overlaps, each until its time: those
-- before the previous one, the newest first.
ALTER TABLE walhook.endpoint
    ADD COLUMN older_secrets text[] NOT NULL DEFAULT '{}',
    ADD COLUMN older_until timestamptz[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT endpoint_older_end CHECK (cardinality(older_secrets) = cardinality(older_until)),
    -- A secret that ends at once has ended when its sender says that it knows.
    ADD COLUMN ended_secret_at timestamptz,
    ADD COLUMN confirmed_revision bigint NOT NULL DEFAULT 0;
CREATE INDEX endpoint_older_until ON walhook.endpoint (id) WHERE older_until <> '{}';
COMMENT ON COLUMN walhook.endpoint.ended_secret_at IS 'when a secret was ended at once: the sender then confirms the revision that it knows';
