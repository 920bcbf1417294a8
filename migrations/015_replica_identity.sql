-- A table without a key could not be updated where another tool publishes all
-- tables of the database: PostgreSQL refuses it. So the whole old row stands for
-- the key. Their rows are inserted and leave with their partition, and hardly
-- ever change, so it costs nothing. Partitions made later take it from these.
ALTER TABLE walhook.attempt REPLICA IDENTITY FULL;
ALTER TABLE walhook.dead_letter REPLICA IDENTITY FULL;
ALTER TABLE walhook.unrouted REPLICA IDENTITY FULL;

DO $$
DECLARE keyless pg_catalog.text;
BEGIN
	FOR keyless IN
		SELECT c.oid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_class c
		WHERE c.relnamespace = 'walhook'::pg_catalog.regnamespace AND c.relkind = 'r' AND c.relreplident = 'd'
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
	LOOP
		EXECUTE 'ALTER TABLE ' || keyless || ' REPLICA IDENTITY FULL';
	END LOOP;
END $$;
