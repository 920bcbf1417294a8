-- The catalog by which changes are routed, as text: whichever process publishes takes it
-- from here. 'walhook setup' puts another one beside it, which the publisher adopts at
-- one position of the source's WAL.
CREATE TABLE walhook.catalog (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state       text NOT NULL CHECK (state IN ('pending', 'in_force', 'past')),
    fingerprint text NOT NULL,
    -- As bytes: a catalog may hold characters that the outbox's encoding lacks.
    content     bytea NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    adopted_at  timestamptz,
    from_lsn    pg_lsn,
    note        text
);
CREATE UNIQUE INDEX catalog_state ON walhook.catalog (state) WHERE state <> 'past';
COMMENT ON TABLE walhook.catalog IS 'the catalog in force, the one that waits to be adopted, and former ones';
COMMENT ON COLUMN walhook.catalog.from_lsn IS 'what committed on the source at this position or later is routed by it; NULL: unknown';
COMMENT ON COLUMN walhook.catalog.note IS 'of a pending one: why it is not in force yet';
