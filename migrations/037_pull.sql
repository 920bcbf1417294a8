-- A webhook of delivery pull has no URL: its receiver reads its feed.
ALTER TABLE walhook.endpoint
    DROP CONSTRAINT endpoint_delivery_known,
    ADD CONSTRAINT endpoint_delivery_known CHECK (delivery IN ('realtime', 'daily', 'pull')),
    DROP CONSTRAINT endpoint_active_has_url,
    ADD CONSTRAINT endpoint_active_has_url CHECK (state <> 'active' OR coalesce(url, '') <> '' OR delivery = 'pull'),
    ADD CONSTRAINT endpoint_pull_has_no_url CHECK (delivery <> 'pull' OR coalesce(url, '') = '');
