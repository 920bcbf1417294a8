-- How many events of the record feed one request to a webhook carries at most; 0: one,
-- and not as an array.
ALTER TABLE walhook.endpoint
    ADD COLUMN batch integer NOT NULL DEFAULT 0 CONSTRAINT endpoint_batch_known CHECK (batch BETWEEN 0 AND 100),
    ADD CONSTRAINT endpoint_batch_of_records CHECK (batch = 0
        OR hook = 'records' AND http_verb <> 'get' AND format IN ('', 'envelope', 'json', 'cloudevents') AND delivery = 'realtime' AND account <> '' AND webhook <> 'account');
COMMENT ON COLUMN walhook.endpoint.batch IS 'most events of one request, which are an array; 0: one event, and no array';

-- The events of a failed batch are sent again together: batch is the id of the first.
-- Of a record only the oldest row is due, also within a batch.
ALTER TABLE walhook.retry
    ADD COLUMN batch bigint,
    DROP CONSTRAINT retry_failed_is_due,
    ADD CONSTRAINT retry_failed_is_due CHECK (attempts = 0 OR next_at IS NOT NULL OR batch IS NOT NULL);
COMMENT ON COLUMN walhook.retry.batch IS 'rows with the same one are sent again together; NULL: by itself';
CREATE INDEX retry_batch ON walhook.retry (endpoint, batch) WHERE batch IS NOT NULL;
