-- Whether the server was asked for logical messages: their place in a
-- transaction counts in its ordinals, or does not.
ALTER TABLE walhook.position ADD COLUMN messages boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN walhook.position.messages IS 'logical messages count in ordinal';
