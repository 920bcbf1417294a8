package cdc

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walhook/cdc/source"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

func planned(t *testing.T, cfg source.Config) *source.Plan {
	t.Helper()
	plan, err := source.PlanSetup(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func statements(p *source.Plan) []string {
	var sql []string
	for _, statement := range p.Statements {
		sql = append(sql, statement.SQL)
	}
	return sql
}

// wantSQL compares statements, without the setting for generated columns, which only
// PostgreSQL 18 has.
func wantSQL(t *testing.T, plan *source.Plan, want ...string) {
	t.Helper()
	const option = "publish_generated_columns = stored"
	got := slices.DeleteFunc(statements(plan), func(sql string) bool { return strings.HasSuffix(sql, "SET ("+option+")") })
	for i, sql := range got {
		got[i] = strings.NewReplacer(", "+option, "", " WITH ("+option+")", "").Replace(sql)
	}
	if !slices.Equal(got, want) {
		t.Errorf("planned\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestPlanSetup_IsWhatTheSourceStillNeeds(t *testing.T) {
	t.Parallel()
	const full = "ALTER TABLE users REPLICA IDENTITY FULL; ALTER TABLE items REPLICA IDENTITY FULL; ALTER TABLE notes REPLICA IDENTITY FULL;"
	for _, test := range []struct {
		name     string
		onSource string // after testTables
		want     []string
		warnings []string
	}{
		{
			name: "fresh",
			want: []string{
				"ALTER TABLE public.items REPLICA IDENTITY FULL",
				"ALTER TABLE public.notes REPLICA IDENTITY FULL",
				"ALTER TABLE public.users REPLICA IDENTITY FULL",
				"CREATE PUBLICATION walhook FOR TABLE public.items, public.notes, public.users",
			},
		},
		{name: "prepared", onSource: full + "CREATE PUBLICATION walhook FOR TABLE users, items, notes"},
		{name: "every table is published", onSource: full + "CREATE PUBLICATION walhook FOR ALL TABLES"},
		{
			name:     "a table is missing",
			onSource: full + "DROP TABLE notes",
			want:     []string{"CREATE PUBLICATION walhook FOR TABLE public.items, public.users"},
			warnings: []string{"table public.notes of the catalog does not exist: left out"},
		},
		{
			name:     "a table is not logged",
			onSource: full + "ALTER TABLE notes SET UNLOGGED",
			want:     []string{"CREATE PUBLICATION walhook FOR TABLE public.items, public.users"},
			warnings: []string{"table public.notes is unlogged, its changes never reach the WAL: left out"},
		},
		{
			name:     "the publication was narrowed",
			onSource: full + "CREATE PUBLICATION walhook FOR TABLE users WITH (publish = 'insert')",
			want: []string{
				"ALTER PUBLICATION walhook SET (publish = 'insert, update, delete, truncate')",
				"ALTER PUBLICATION walhook ADD TABLE public.items, public.notes",
			},
		},
		{
			name: "a partitioned table",
			onSource: full + `DROP TABLE items; CREATE TABLE items (id int PRIMARY KEY, user_id int, name text) PARTITION BY LIST (id);
				CREATE TABLE items_1 PARTITION OF items FOR VALUES IN (1); CREATE TABLE items_2 PARTITION OF items FOR VALUES IN (2);
				ALTER TABLE items_2 REPLICA IDENTITY FULL`,
			want: []string{
				"ALTER TABLE public.items_1 REPLICA IDENTITY FULL",
				"ALTER TABLE public.items REPLICA IDENTITY FULL",
				"CREATE PUBLICATION walhook FOR TABLE public.items, public.notes, public.users WITH (publish_via_partition_root = true)",
			},
		},
		{
			name: "a partitioned table that is published as its partitions: that will do",
			onSource: full + `DROP TABLE items; CREATE TABLE items (id int PRIMARY KEY, user_id int, name text) PARTITION BY LIST (id);
				ALTER TABLE items REPLICA IDENTITY FULL; CREATE PUBLICATION walhook FOR TABLE users, items, notes`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), test.onSource)
			plan := planned(t, w.cfg)
			wantSQL(t, plan, test.want...)
			if !slices.Equal(plan.Warnings, test.warnings) {
				t.Errorf("warnings %q, want %q", plan.Warnings, test.warnings)
			}
			if err := plan.Apply(t.Context(), w.cfg, noChanges{}, quiet); err != nil {
				t.Fatal(err)
			}
			wantSQL(t, planned(t, w.cfg)) // nothing is left to do
		})
	}
}

// With NOTHING, and with DEFAULT without a key, the customer's own UPDATE and DELETE fail
// once the table is published.
func TestPlanSetup_NeverBreaksTheCustomersUpdates(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), `ALTER TABLE users REPLICA IDENTITY NOTHING;
		ALTER TABLE notes DROP CONSTRAINT notes_pkey; INSERT INTO users VALUES (1)`)
	plan := planned(t, w.cfg)
	optional := map[string]bool{}
	for i, statement := range plan.Statements {
		optional[statement.SQL] = statement.Optional
		if last := i == len(plan.Statements)-1; strings.HasPrefix(statement.SQL, "CREATE PUBLICATION") != last {
			t.Errorf("statement %d of %d is %s", i+1, len(plan.Statements), statement.SQL)
		}
	}
	for table, want := range map[string]bool{"users": false, "notes": false, "items": true} {
		if got := optional["ALTER TABLE public."+table+" REPLICA IDENTITY FULL"]; got != want {
			t.Errorf("replica identity of %s is optional: %t, want %t", table, got, want)
		}
	}
	if err := plan.Apply(t.Context(), w.cfg, noChanges{}, quiet); err != nil {
		t.Fatal(err)
	}
	w.exec(t, "UPDATE users SET web_hook_url = 'http://example.com'", "DELETE FROM notes")
}

func TestPlanSetup_NamesWhatASuperuserHasToFix(t *testing.T) {
	t.Parallel()
	t.Run("the account table is missing", func(t *testing.T) {
		t.Parallel()
		w := unprepared(t, pgtest.Database(t), "DROP TABLE users")
		_, err := source.PlanSetup(t.Context(), w.cfg)
		wantFault(t, err, "account table public.users does not exist", "--catalog")
	})
	t.Run("wal_level is not logical", func(t *testing.T) {
		t.Parallel()
		cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"wal_level": "replica"}})
		w := unprepared(t, pgtest.NewDatabase(t, cluster), "")
		_, err := source.PlanSetup(t.Context(), w.cfg)
		wantFault(t, err, "wal_level is replica", "ALTER SYSTEM SET wal_level = 'logical'")
	})
	t.Run("the role may not replicate", func(t *testing.T) {
		t.Parallel()
		w := unprepared(t, pgtest.Database(t), "")
		w.cfg.URL = w.role(t, "NOREPLICATION", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %")
		_, err := source.PlanSetup(t.Context(), w.cfg)
		wantFault(t, err, "lacks REPLICATION", "REPLICATION")
	})
	t.Run("the role may not read", func(t *testing.T) {
		t.Parallel()
		w := unprepared(t, pgtest.Database(t), "")
		w.cfg.URL = w.role(t, "REPLICATION", "GRANT SELECT ON users, items TO %")
		_, err := source.PlanSetup(t.Context(), w.cfg)
		wantFault(t, err, "may not read table public.notes", "GRANT SELECT")
	})
	t.Run("the database does not exist", func(t *testing.T) {
		t.Parallel()
		w := unprepared(t, pgtest.Database(t), "")
		w.cfg.URL = strings.Replace(w.cfg.URL, w.Name, "nowhere", 1)
		_, err := source.PlanSetup(t.Context(), w.cfg)
		wantFault(t, err, "does not exist", "--source")
	})
	t.Run("the password is wrong", func(t *testing.T) {
		t.Parallel()
		w := unprepared(t, pgtest.Database(t), "")
		address, err := url.Parse(w.cfg.URL)
		if err != nil {
			t.Fatal(err)
		}
		address.User = url.UserPassword("postgres", "hunter2")
		w.cfg.URL = address.String()
		_, err = source.PlanSetup(t.Context(), w.cfg)
		wantFault(t, err, "refuses the role", "--source")
		if strings.Contains(err.Error(), "hunter2") {
			t.Error("the error shows the password")
		}
	})
}

// role makes a role and returns the source's URL for it. % in statements is
// its name.
func (w *world) role(t *testing.T, attributes string, statements ...string) string {
	t.Helper()
	name := "role_" + w.Name
	w.exec(t, "CREATE ROLE "+name+" LOGIN PASSWORD 'secret' "+attributes)
	t.Cleanup(func() {
		for _, sql := range []string{"DROP OWNED BY " + name, "DROP ROLE " + name} {
			_, _ = w.conn.Exec(context.Background(), sql)
		}
	})
	for _, sql := range statements {
		w.exec(t, strings.ReplaceAll(sql, "%", name))
	}
	source, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	source.User = url.UserPassword(name, "secret")
	return source.String()
}

func TestApply_DoesWithoutARightThatItCanDoWithout(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "")
	w.exec(t, "CREATE PUBLICATION walhook FOR TABLE users, items, notes")
	w.cfg.URL = w.role(t, "REPLICATION", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %")
	core, logs := observer.New(zap.WarnLevel)
	if err := planned(t, w.cfg).Apply(t.Context(), w.cfg, noChanges{}, zap.New(core)); err != nil {
		t.Fatal(err)
	}
	if n := logs.Len(); n != 3 {
		t.Errorf("%d warnings, want one for each table: %v", n, logs.All())
	}
}

func TestApply_SaysWhichRightIsMissing(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "")
	w.cfg.URL = w.role(t, "REPLICATION", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %")
	err := planned(t, w.cfg).Apply(t.Context(), w.cfg, noChanges{}, quiet)
	wantFault(t, err, "CREATE PUBLICATION", "let a DBA run")
}

func TestApply_DoesNotQueueForATableForLong(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "")
	plan := planned(t, w.cfg)
	w.exec(t, "BEGIN", "LOCK TABLE items IN SHARE MODE")
	err := plan.Apply(t.Context(), w.cfg, noChanges{}, quiet)
	w.exec(t, "ROLLBACK")
	wantFault(t, err, "a running transaction locks the table", "again")
}

// The role has REPLICATION and SELECT only; the publication belongs to another role.
func TestReader_WorksWithTheLeastPrivilege(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "INSERT INTO users VALUES (7, 'http://example.com'); INSERT INTO items VALUES (1, 7, 'x')")
	w.exec(t, "CREATE PUBLICATION walhook FOR TABLE users, items, notes")
	w.cfg.URL = w.role(t, "REPLICATION", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %")
	if err := planned(t, w.cfg).Apply(t.Context(), w.cfg, noChanges{}, quiet); err != nil {
		t.Fatal(err)
	}
	w.setup(t)
	w.start(t)
	w.exec(t, "UPDATE items SET name = 'y'")
	w.settle(t)
	wantLines(t, w.lines(), []string{"update public.items new(id*=1 user_id=7 name=y)"})
	if len(w.store.accounts) != 1 {
		t.Errorf("read %d accounts", len(w.store.accounts))
	}
}

// PostgreSQL 18 refuses the updates of a published table whose replica identity
// holds a generated column that is not published, as FULL does.
func TestPlanSetup_LeavesTablesWithGeneratedColumnsUpdatable(t *testing.T) {
	t.Parallel()
	for name, identity := range map[string]string{"as it is": "", "under FULL": "ALTER TABLE items REPLICA IDENTITY FULL;"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), `ALTER TABLE items ADD twice int GENERATED ALWAYS AS (id * 2) STORED;`+identity+
				`INSERT INTO items (id, user_id, name) VALUES (1, 7, 'x')`)
			if err := planned(t, w.cfg).Apply(t.Context(), w.cfg, noChanges{}, quiet); err != nil {
				t.Fatal(err)
			}
			w.exec(t, "UPDATE items SET name = 'y'", "DELETE FROM items")
			wantSQL(t, planned(t, w.cfg)) // nothing is left to do
		})
	}
}

// Any publication with a column list for a table makes the server refuse the table's
// updates under FULL.
func TestPlanSetup_LeavesTablesUnderAListOfColumnsUpdatable(t *testing.T) {
	t.Parallel()
	const ours, others = "CREATE PUBLICATION walhook FOR TABLE users, notes, items (id, user_id);", "CREATE PUBLICATION another FOR TABLE items (id, name);"
	for name, extra := range map[string]string{
		"our publication": ours, "another's": others, "another's, every column": "CREATE PUBLICATION another FOR TABLE items (id, user_id, name);",
		"under FULL before":      others + "ALTER TABLE items REPLICA IDENTITY FULL;",
		"another's, by its root": dividedItems + "CREATE PUBLICATION another FOR TABLE items (id, name) WITH (publish_via_partition_root = true);",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), "")
			if one[int](t, w, "SELECT current_setting('server_version_num')::int") < 150000 {
				t.Skip("the server has no lists of columns")
			}
			w.exec(t, extra+"INSERT INTO items VALUES (1, 7, 'x')")
			plan := planned(t, w.cfg)
			if err := plan.Apply(t.Context(), w.cfg, noChanges{}, quiet); err != nil {
				t.Fatal(err)
			}
			w.exec(t, "UPDATE items SET name = 'y'", "DELETE FROM items")
			if len(plan.Warnings) == 0 || !strings.Contains(strings.Join(plan.Warnings, "\n"), "column list") {
				t.Errorf("warnings: %q", plan.Warnings)
			}
			wantSQL(t, planned(t, w.cfg)) // nothing is left to do
		})
	}
}

// noChanges keeps nothing.
type noChanges struct{}

func (noChanges) KeepSourceChange(context.Context, schemas.SourceChange) (int64, error) {
	return 0, nil
}
func (noChanges) SourceChangeUndone(context.Context, int64) error { return nil }

// If the replica identity uses another index than the primary key's, its columns are the
// key. That does not work if other records refer to the primary key, or if the catalog
// names another key: then only FULL works.
func TestPlanSetup_AnIdentityWithoutTheKeyIsNoOption(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), `
		ALTER TABLE items ADD ext int NOT NULL UNIQUE; ALTER TABLE items REPLICA IDENTITY USING INDEX items_ext_key;
		ALTER TABLE notes ADD ext int NOT NULL UNIQUE; ALTER TABLE notes REPLICA IDENTITY USING INDEX notes_ext_key;
		CREATE TABLE named (id int PRIMARY KEY, country text, user_id int);`)
	w.cfg.Catalog = catalogOf(t, testCatalog+"  named: {table: public.named, key: [country], owner: user_id, fields: [id]}\n")
	optional := map[string]bool{}
	for _, statement := range planned(t, w.cfg).Statements {
		optional[statement.SQL] = statement.Optional
	}
	for sql, want := range map[string]bool{
		"ALTER TABLE public.items REPLICA IDENTITY FULL": false,
		"ALTER TABLE public.notes REPLICA IDENTITY FULL": true,
		"ALTER TABLE public.named REPLICA IDENTITY FULL": false,
		"ALTER TABLE public.users REPLICA IDENTITY FULL": true,
	} {
		if got, there := optional[sql]; !there || got != want {
			t.Errorf("%s: there %v, optional %v", sql, there, got)
		}
	}
}

// With a collation that is not deterministic, or with some types, different texts are the
// same value, and only the server can compare them.
func TestPlanSetup_RefusesIDsThatTextsDoNotTell(t *testing.T) {
	t.Parallel()
	for _, alter := range []string{
		"ALTER TABLE users ALTER id TYPE text COLLATE loose", "ALTER TABLE items ALTER user_id TYPE text COLLATE loose", "ALTER TABLE items ALTER id TYPE text COLLATE loose",
		"ALTER TABLE items ALTER user_id TYPE interval USING NULL", "ALTER TABLE items ALTER user_id TYPE jsonb USING NULL", "ALTER TABLE items ALTER user_id TYPE numrange USING NULL",
		"ALTER TABLE items ALTER user_id TYPE numeric[] USING NULL", "CREATE TYPE pair AS (a int, b numeric); ALTER TABLE items ALTER user_id TYPE pair USING NULL",
		"CREATE DOMAIN span AS interval; ALTER TABLE items ALTER user_id TYPE span USING NULL",
	} {
		w := unprepared(t, pgtest.Database(t), "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"+alter+";")
		_, err := source.PlanSetup(t.Context(), w.cfg)
		if fault, ok := errors.AsType[*source.Fault](err); !ok || !strings.Contains(fault.Problem, "different texts are the same value") || !strings.Contains(fault.Fix, "ALTER TABLE") {
			t.Errorf("%s: %v", alter, err)
		}
	}
}

func TestPlanSetup_SuggestsToKeepOthersFromEmitting(t *testing.T) {
	w := newWorld(t, "")
	suggested := func() (list []string) {
		t.Helper()
		plan, err := source.PlanSetup(t.Context(), w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range plan.Suggestions {
			list = append(list, s.SQL)
		}
		return list
	}
	list := suggested()
	if len(list) != 2 {
		t.Fatalf("suggested: %q, want one for text and one for bytea", list)
	}
	w.exec(t, list[0])
	if now := suggested(); len(now) != 1 || now[0] != list[1] {
		t.Errorf("suggested: %q, want what PUBLIC still has", now)
	}
	w.exec(t, list[1])
	if now := suggested(); len(now) != 0 {
		t.Errorf("suggested: %q, although PUBLIC has neither", now)
	}
}
