-- Somebody asked for what waits for a retry to be sent now. The count goes with the
-- lane, so that its next owner knows what the former one has acted on.
ALTER TABLE walhook.endpoint ADD COLUMN retry_asked bigint NOT NULL DEFAULT 0;
ALTER TABLE walhook.lane ADD COLUMN retry_seen bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN walhook.endpoint.retry_asked IS 'how often it was asked for: a higher one ends the open time of the breaker and a pause';
COMMENT ON COLUMN walhook.lane.retry_seen IS 'the endpoint''s retry_asked that the sender has acted on';
