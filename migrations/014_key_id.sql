-- Which key 'endpoints reseal' encrypted under, by a value made of the key that
-- tells nothing of it: another key is told from a row that was edited.
ALTER TABLE walhook.sealing ADD COLUMN key_id text;
