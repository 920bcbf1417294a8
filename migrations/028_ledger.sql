-- The ledger is walhook.owner where it is complete: of a schema that is listed here, it
-- holds every record that the stream has told of, and its account.
CREATE TABLE walhook.ledger (
    schema text PRIMARY KEY
);
COMMENT ON TABLE walhook.ledger IS 'schemas of which walhook.owner has every record; of others it cannot be told what is gone';

-- An older walhook kept all records of a schema or none. One look into the index for each
-- schema.
INSERT INTO walhook.ledger (schema)
WITH RECURSIVE found (schema) AS (
    SELECT min(schema) FROM walhook.owner
    UNION ALL
    SELECT (SELECT min(o.schema) FROM walhook.owner o WHERE o.schema > f.schema) FROM found f WHERE f.schema IS NOT NULL
)
SELECT schema FROM found WHERE schema IS NOT NULL AND EXISTS (SELECT FROM walhook.source WHERE state = 'ready');
