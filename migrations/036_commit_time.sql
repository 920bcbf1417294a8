ALTER TABLE walhook.position ADD COLUMN committed_at timestamptz;
COMMENT ON COLUMN walhook.position.committed_at IS 'when the source committed the transaction of commit_lsn; NULL: unknown';
