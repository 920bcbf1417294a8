-- Events and dead letters are looked up by their webhook-id. The ids of changes
-- rise with the log, so the index grows at its end. It takes the place of the one
-- of replayed events alone.
CREATE INDEX event_webhook_id ON walhook.event (webhook_id, endpoint, id);
DROP INDEX walhook.event_replayed;
CREATE INDEX dead_letter_webhook_id ON walhook.dead_letter (webhook_id, endpoint, event_id);

-- An account looks back at the webhooks that it deleted. Of those that were
-- deleted before it cannot be told whether their account has ended since, and so
-- whether they are the present one's.
UPDATE walhook.endpoint SET ended_at = deleted_at WHERE deleted_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX endpoint_deleted ON walhook.endpoint (account, deleted_at) WHERE deleted_at IS NOT NULL AND ended_at IS NULL;
