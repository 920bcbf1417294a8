-- Which request carried an event: the webhook-id of its batch.
ALTER TABLE walhook.attempt ADD COLUMN batch text NOT NULL DEFAULT '';
COMMENT ON COLUMN walhook.attempt.batch IS 'the webhook-id of the request, where that was a batch; '''': it was the event''s own';
