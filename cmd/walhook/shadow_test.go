package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// shadowsSQL makes, in schema $1, functions under the names of those that our
// SQL calls, which fit calls better than the server's own: for each of their
// signatures one with another type at one place, and one with it everywhere.
// And operators between types that the server has none for.
const shadowsSQL = `
DO $do$
DECLARE f record; t text; i int; args text[]; body text := 'LANGUAGE plpgsql AS ''BEGIN RETURN NULL; END''';
	types text[] := '{text,name,varchar,oid,int2,int4,int8,float8,numeric,regclass,pg_lsn,timestamptz,bool,interval,"\"char\"",bytea}';
	o text; a text; b text;
BEGIN
	FOR f IN SELECT p.proname, p.proargtypes::oid[] AS given, p.prorettype::regtype AS result, p.proretset, p.pronargs AS n FROM pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ('{%[2]s}') AND p.prokind = 'f' AND p.pronargs BETWEEN 1 AND 3
			AND p.provariadic = 0 AND NOT EXISTS (SELECT FROM unnest(p.proargtypes::oid[] || p.prorettype) x JOIN pg_type y ON y.oid = x WHERE y.typtype = 'p')
	LOOP
		FOREACH t IN ARRAY types LOOP
			FOR i IN 0 .. f.n LOOP
				args := ARRAY(SELECT CASE WHEN i IN (0, k) THEN t ELSE format_type(f.given[k - 1], NULL) END FROM generate_series(1, f.n) k);
				BEGIN
					EXECUTE format('CREATE FUNCTION %[1]s.%%I(%%s) RETURNS %%s %%s', f.proname, array_to_string(args, ','), f.result, body);
				EXCEPTION WHEN duplicate_function OR invalid_function_definition THEN
				END;
			END LOOP;
		END LOOP;
	END LOOP;
	CREATE FUNCTION %[1]s.shadow_tree(oid) RETURNS regclass LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	FOREACH a IN ARRAY types LOOP
		FOREACH b IN ARRAY types LOOP
			EXECUTE format('CREATE FUNCTION %[1]s.shadow_operator(%%s, %%s) RETURNS bool %%s', a, b, body);
			FOREACH o IN ARRAY '{=,<>,<,>,<=,>=,-,+,||,*,/,~}'::text[] LOOP
				CONTINUE WHEN to_regoperator(format('pg_catalog.%%s(%%s,%%s)', o, a, b)) IS NOT NULL;
				EXECUTE format('CREATE OPERATOR %[1]s.%%s (LEFTARG = %%s, RIGHTARG = %%s, FUNCTION = %[1]s.shadow_operator)', o, a, b);
			END LOOP;
		END LOOP;
	END LOOP;
END $do$;
CREATE FUNCTION %[1]s.pg_partition_tree(oid, OUT relid regclass, OUT parentrelid regclass, OUT isleaf bool, OUT level int)
	RETURNS SETOF record LANGUAGE plpgsql AS 'BEGIN END';`

// calledSQL names what of a schema was called.
const calledSQL = `SELECT coalesce(string_agg(schemaname || '.' || funcname || ' ' || calls, ', '), '') FROM pg_stat_user_functions
	WHERE schemaname <> 'walhook' AND calls > 0`

// wordsOfSQL are the words that our SQL may name a function by.
func wordsOfSQL(t *testing.T) string {
	t.Helper()
	words := map[string]bool{}
	for _, pattern := range []string{"../../cdc/*.go", "../../outbox/*.go", "../../doctor/*.go", "../../schemas/*.go", "../../migrations/*.sql"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range regexp.MustCompile(`([a-z_][a-z0-9_]+)\(`).FindAllSubmatch(text, -1) {
				words[string(call[1])] = true
			}
		}
	}
	var list []string
	for word := range words {
		list = append(list, word)
	}
	return strings.Join(list, ",")
}

// Whoever may create functions and operators in public, which is everybody in a
// cluster that comes from PostgreSQL 14, has none of them called: neither by
// walhook nor by a superuser who runs what setup prints.
func TestSource_CallsNoFunctionOfOthers(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	to, err := receiver.Start(receiver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	role := "shadowed_" + db.Name
	db.Exec(t, fmt.Sprintf(`CREATE ROLE %[1]s LOGIN REPLICATION PASSWORD 'secret'; GRANT CREATE ON DATABASE %[2]s TO %[1]s; GRANT ALL ON SCHEMA public TO public;
		GRANT pg_monitor TO %[1]s; ALTER DATABASE %[2]s SET track_functions = 'all';
		CREATE TABLE users (id bigint PRIMARY KEY, web_hook_url text, reseller_id bigint);
		CREATE TABLE dids (id bigint NOT NULL, user_id bigint, number text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
		CREATE TABLE dids_1 PARTITION OF dids DEFAULT;
		CREATE TABLE e911 (id bigint PRIMARY KEY, did_id bigint);
		INSERT INTO users VALUES (7, '%[3]s'); INSERT INTO dids VALUES (1, 7, 'x'); INSERT INTO e911 VALUES (1, 1)`, role, db.Name, to.URL("7")))
	pinned, err := pgx.ParseConfig(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	pinned.RuntimeParams["search_path"] = "pg_catalog, pg_temp"
	conn, err := pgx.ConnectConfig(t.Context(), pinned)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		_, _ = conn.Exec(ctx, "DROP OWNED BY "+role+"; DROP ROLE "+role, pgx.QueryExecModeSimpleProtocol)
		_ = conn.Close(ctx)
	})
	for _, schema := range []string{"public", role} {
		db.Exec(t, "CREATE SCHEMA IF NOT EXISTS "+schema+" AUTHORIZATION "+role+";"+
			"GRANT ALL ON SCHEMA "+schema+" TO public;"+fmt.Sprintf(shadowsSQL, schema, wordsOfSQL(t)))
	}
	// The shadows do work where nothing is pinned.
	db.Exec(t, "SELECT pg_partition_tree(oid) FROM pg_class LIMIT 1; SELECT relname || 1::oid FROM pg_class LIMIT 1")
	called := func() (names string) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), calledSQL).Scan(&names); err != nil {
			t.Fatal(err)
		}
		return names
	}
	eventually(t, 10*time.Second, func() bool {
		return strings.Contains(called(), "pg_partition_tree") && strings.Contains(called(), "shadow_operator")
	})
	if _, err := conn.Exec(t.Context(), "SELECT pg_stat_reset()"); err != nil {
		t.Fatal(err)
	}

	catalog := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(catalog, []byte(`
account: {table: public.users, id: id, url: web_hook_url, parent: reseller_id}
schemas:
  dids: {table: public.dids, owner: user_id, fields: [id, user_id, number]}
  e911: {table: public.e911, owner: {column: did_id, schema: dids}, fields: [id, did_id]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	url, slot := withUser(t, db.URL, role, "secret"), "shadow_"+db.Name
	source := []string{"--source", url, "--slot", slot, "--catalog", catalog}
	db.Exec(t, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+role)
	plan := mustRun(t, append([]string{"setup", "--dry-run"}, source...)...)
	if !strings.HasPrefix(plan, "SET search_path = pg_catalog, pg_temp;") {
		t.Errorf("setup --dry-run prints\n%s", plan)
	}
	db.Exec(t, plan+"\nALTER PUBLICATION walhook OWNER TO "+role) // as a superuser
	mustRun(t, append([]string{"setup"}, source...)...)
	process := startChild(t, append([]string{"run", "--listen", "off", "--allow-cidr", "127.0.0.0/8"}, source...)...)
	if _, err := conn.Exec(t.Context(), "UPDATE public.dids SET number = 'y'; UPDATE public.e911 SET did_id = 1", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() bool { return to.Count() >= 2 })
	_ = childCommand(t, append([]string{"doctor"}, source...)...).Run() // it may find something
	mustRun(t, "status", "--source", url, "--outbox", url, "--slot", slot)
	process.stop(t)
	mustRun(t, "teardown", "--outbox", url, "--source", url, "--slot", slot)
	time.Sleep(time.Second) // what ended sessions have counted is reported by then
	if names := called(); names != "" {
		t.Errorf("functions of others were called: %s", names)
	}
}
