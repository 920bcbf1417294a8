-- The fences of 024, with the same meaning. A function in SQL that is called from PL/pgSQL
-- is planned at each call, which was two thirds of what a fence cost; PL/pgSQL keeps the
-- plans of its own statements.
CREATE OR REPLACE FUNCTION walhook.on_timeline(mine text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT t.token = mine AND t.number = ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer
        FROM walhook.timeline t ORDER BY t.id DESC LIMIT 1), false);
END $$;
