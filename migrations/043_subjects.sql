ALTER TABLE walhook.endpoint ADD COLUMN subject_prefix text NOT NULL DEFAULT '';
COMMENT ON COLUMN walhook.endpoint.subject_prefix IS 'of a feed over NATS: what its subjects begin with';
