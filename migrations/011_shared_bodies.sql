-- A large body that goes to several endpoints is stored once: body_of is the
-- event of the same partition that carries it, body_size its length. Both are
-- null where an event has a body of its own.
ALTER TABLE walhook.event ADD COLUMN body_of bigint, ADD COLUMN body_size integer;
