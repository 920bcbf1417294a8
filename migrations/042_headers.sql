-- Static headers of a webhook's requests. The values are encrypted as secrets are, each
-- for its endpoint, its name, and the scheme, host and port of the URL.
ALTER TABLE walhook.endpoint
    ADD COLUMN header_names  text[] NOT NULL DEFAULT '{}',
    ADD COLUMN header_values text[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT endpoint_headers_have_values CHECK (cardinality(header_names) = cardinality(header_values) AND cardinality(header_names) <= 10
        AND array_position(header_names, NULL) IS NULL AND array_position(header_values, NULL) IS NULL),
    ADD CONSTRAINT endpoint_own_has_no_headers CHECK (webhook <> 'account' OR header_names = '{}'),
    ADD CONSTRAINT endpoint_pull_has_no_headers CHECK (delivery <> 'pull' OR header_names = '{}');
COMMENT ON COLUMN walhook.endpoint.header_values IS 'in the order of header_names; with a secret key encrypted';
