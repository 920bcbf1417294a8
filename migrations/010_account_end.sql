-- The own endpoint of an account that has ended takes another name when an
-- account of the same id begins: it goes on to deliver what was appended, and
-- nothing of it is the new account's.
ALTER TABLE walhook.endpoint
    DROP CONSTRAINT endpoint_deleted_is_cleared,
    ADD CONSTRAINT endpoint_deleted_is_cleared CHECK (deleted_at IS NULL OR state = 'cleared' OR webhook LIKE 'ended-%');
