package endtoend

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// shadowsSQL makes, in schema $1, functions under the names of those that our
// SQL calls, which fit calls better than the server's own: for each of their
// signatures one with another type at one place, and one with it everywhere.
// And operators between types that the server has none for; in the schema exact
// also between those that it has.
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
				CONTINUE WHEN '%[1]s' <> 'exact' AND to_regoperator(format('pg_catalog.%%s(%%s,%%s)', o, a, b)) IS NOT NULL;
				EXECUTE format('CREATE OPERATOR %[1]s.%%s (LEFTARG = %%s, RIGHTARG = %%s, FUNCTION = %[1]s.shadow_operator)', o, a, b);
			END LOOP;
		END LOOP;
	END LOOP;
END $do$;
CREATE FUNCTION %[1]s.pg_partition_tree(oid, OUT relid regclass, OUT parentrelid regclass, OUT isleaf bool, OUT level int)
	RETURNS SETOF record LANGUAGE plpgsql AS 'BEGIN END';`

// castsSQL makes types that columns of the catalog's tables have, and whose owner
// made casts of his own to whatever they are read as. The server counts calls from
// inside its own functions only of a SECURITY DEFINER.
const castsSQL = `
SET ROLE %[1]s;
CREATE TYPE public.standing AS ENUM ('good', 'bad');
CREATE TYPE public.pair AS (of public.standing, n int);
CREATE FUNCTION public.shadow_text(public.standing) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN ''shadow''; END';
CREATE FUNCTION public.shadow_json(public.standing) RETURNS json LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN ''1''; END';
CREATE CAST (public.standing AS text) WITH FUNCTION public.shadow_text(public.standing) AS IMPLICIT;
CREATE CAST (public.standing AS json) WITH FUNCTION public.shadow_json(public.standing) AS IMPLICIT;
RESET ROLE;
CREATE TABLE rooms (code standing PRIMARY KEY, user_id bigint);
CREATE TABLE keys (id bigint PRIMARY KEY, room text);
CREATE TABLE locks (id bigint PRIMARY KEY, room standing);
ALTER TABLE users ADD standing standing, ADD pair pair, ADD pairs pair[];
UPDATE users SET standing = 'good', pair = ('bad', 3), pairs = ARRAY[('bad', 4)::pair];
INSERT INTO rooms VALUES ('good', 7); INSERT INTO keys VALUES (1, 'good'); INSERT INTO locks VALUES (1, 'good')`

// calledSQL names what of a schema was called.
const calledSQL = `SELECT coalesce(string_agg(schemaname || '.' || funcname || ' ' || calls, ', '), '') FROM pg_stat_user_functions
	WHERE schemaname <> 'walhook' AND calls > 0`

// wordsOfSQL are the words that our SQL may name a function by.
func wordsOfSQL(t *testing.T) string {
	t.Helper()
	words := map[string]bool{}
	for _, folder := range []string{"cdc", "outbox", "doctor", "schemas", "migrations"} {
		for _, text := range sources(t, filepath.Join("../..", folder)) {
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

// sources are the texts of the Go and SQL files in a folder and below it.
func sources(t *testing.T, folder string) (texts [][]byte) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" && filepath.Ext(path) != ".sql" {
			return err
		}
		text, err := os.ReadFile(path)
		texts = append(texts, text)
		return err
	})
	if err != nil || len(texts) == 0 {
		t.Fatalf("%s: %d files, %v", folder, len(texts), err)
	}
	return texts
}

// Whoever may create functions and operators in public, which is everybody in a
// cluster that comes from PostgreSQL 14, has none of them called: neither by
// walhook nor by a superuser who runs what setup prints.
func TestSearchPath_NoFunctionOrOperatorOfOthersIsCalled(t *testing.T) {
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
	db.Exec(t, fmt.Sprintf(castsSQL, role))
	words := wordsOfSQL(t)
	shadow := func(schema string) {
		db.Exec(t, "CREATE SCHEMA IF NOT EXISTS "+schema+" AUTHORIZATION "+role+"; GRANT ALL ON SCHEMA "+schema+" TO public;"+
			"SET search_path = pg_catalog;"+fmt.Sprintf(shadowsSQL, schema, words))
	}
	shadow("public")
	shadow("exact")
	// The shadows do work where nothing is pinned.
	db.Exec(t, "SELECT pg_partition_tree(oid) FROM pg_class LIMIT 1; SELECT relname || 1::oid FROM pg_class LIMIT 1; SELECT to_json(standing), standing::text FROM users")
	called := func() (names string) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), calledSQL).Scan(&names); err != nil {
			t.Fatal(err)
		}
		return names
	}
	eventually(t, 10*time.Second, func() bool {
		names := called()
		return !slices.ContainsFunc([]string{"pg_partition_tree", "shadow_operator", "shadow_text", "shadow_json"}, func(name string) bool { return !strings.Contains(names, name) })
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
  rooms: {table: public.rooms, owner: user_id, fields: [code, user_id]}
  keys: {table: public.keys, owner: {column: room, schema: rooms}, fields: [id, room]}
  locks: {table: public.locks, owner: {column: room, schema: rooms}, fields: [id, room]}
derive:
  - hook: number
    groups: [numbers]
    schema: dids
    when: {added: insert}
    fields: {standing: {account: standing}, pair: {account: pair}, pairs: {account: pairs}}
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
	for line := range strings.Lines(plan) { // as a superuser, who takes over a line at a time
		if !strings.HasPrefix(line, "SET ") && !strings.HasPrefix(line, "-- ") {
			db.Exec(t, "SET search_path = exact, public, pg_catalog; "+line)
		}
	}
	db.Exec(t, "ALTER PUBLICATION walhook OWNER TO "+role)
	mustRun(t, append([]string{"setup"}, source...)...)
	var kept string
	const want = `{"{\"of\":\"bad\",\"n\":3}","[{\"of\":\"bad\",\"n\":4}]","\"good\""} 5`
	if err := conn.QueryRow(t.Context(), `SELECT pg_catalog.concat_ws(' ', (SELECT columns FROM walhook.account_column),
		(SELECT pg_catalog.count(*) FROM walhook.owner WHERE account = '7'))`).Scan(&kept); err != nil || kept != want {
		t.Errorf("the first snapshot kept %s, %v, want %s", kept, err, want)
	}
	process := startChild(t, append([]string{"run", "--listen", "off", "--allow-cidr", "127.0.0.0/8"}, source...)...)
	if _, err := conn.Exec(t.Context(), "UPDATE public.dids SET number = 'y'; UPDATE public.e911 SET did_id = 1", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() bool { return to.Count() >= 2 })
	shadow(role) // now that all its sessions are open, and their statements planned
	if _, err := conn.Exec(t.Context(), "INSERT INTO public.dids VALUES (2, 7, 'z'); UPDATE public.e911 SET did_id = 2; INSERT INTO public.locks VALUES (2, 'good')",
		pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() bool { return to.Count() >= 5 })
	_ = childCommand(t, append([]string{"doctor"}, source...)...).Run() // it may find something
	mustRun(t, "status", "--source", url, "--outbox", url, "--slot", slot)
	process.stop(t)
	for _, statement := range statementsOfDoctor(t, db, source) {
		db.Exec(t, "SET search_path = exact, public, pg_catalog; "+statement)
	}
	mustRun(t, "teardown", "--outbox", url, "--source", url, "--slot", slot)
	eventually(t, 20*time.Second, func() (ended bool) { // a session reports what it has counted as it ends
		const sql = `SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND usename = $1)`
		if err := conn.QueryRow(t.Context(), sql, role).Scan(&ended); err != nil {
			t.Fatal(err)
		}
		return ended
	})
	if names := called(); names != "" {
		t.Errorf("functions of others were called: %s", names)
	}
}

// statementsOfDoctor are those that doctor prints for whoever has the rights,
// about an outbox and tables to which much has happened; none that the server
// at large would notice.
func statementsOfDoctor(t *testing.T, db *pgtest.DB, source []string) (statements []string) {
	t.Helper()
	db.Exec(t, `DELETE FROM walhook.shard WHERE id > 3;
		INSERT INTO walhook.sender (name, process, lease_until) VALUES ('gone', 'x', clock_timestamp() - interval '1 hour');
		INSERT INTO walhook.set_aside (loop, item, reason, detail) VALUES ('appends', 'x', 'unstorable', 'y');
		ALTER TABLE public.e911 REPLICA IDENTITY DEFAULT`)
	out, err := walhook(t, append([]string{"doctor", "--json"}, source...)...)
	for _, finding := range readFindings(t, out, err) {
		for _, step := range finding.Fix {
			if step.Kind == doctor.SQL && !strings.HasPrefix(step.Text, "ALTER SYSTEM") && !strings.Contains(step.Text, "pg_reload_conf") {
				statements = append(statements, step.Text)
			}
		}
	}
	for _, want := range []string{"walhook.shard", "walhook.sender", "walhook.set_aside", "REPLICA IDENTITY"} {
		if !slices.ContainsFunc(statements, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("doctor prints no statement about %s:\n%s", want, out)
		}
	}
	return statements
}
