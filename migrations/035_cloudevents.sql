ALTER TABLE walhook.endpoint
    DROP CONSTRAINT endpoint_format_known,
    ADD CONSTRAINT endpoint_format_known CHECK (format IN ('', 'envelope', 'json', 'form', 'cloudevents'));
