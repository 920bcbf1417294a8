-- Since when, and why, nothing is sent to an endpoint by a fault of walhook's own
-- side. Null where there is none.
ALTER TABLE walhook.lane ADD COLUMN held_since timestamptz, ADD COLUMN held_reason text NOT NULL DEFAULT '';
