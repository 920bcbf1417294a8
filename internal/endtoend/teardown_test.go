package endtoend

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// identities are the replica identities of the tables in public, by name.
func (o *owned) identities(t *testing.T) string {
	t.Helper()
	rows, err := o.carrier.Query(t.Context(), `SELECT concat_ws(':', relname, relreplident) FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, " ")
}

func TestTeardown_SetsBackWhatSetupChangedAndNobodySince(t *testing.T) {
	t.Parallel()
	o := newOwned(t, ownedTables+`
		CREATE TABLE taken (id int PRIMARY KEY, user_id int);
		CREATE TABLE changed (id int PRIMARY KEY, user_id int);
		CREATE TABLE indexed (id int NOT NULL, user_id int);
		CREATE UNIQUE INDEX "by id" ON indexed (id);
		ALTER TABLE indexed REPLICA IDENTITY USING INDEX "by id";
		CREATE TABLE full_before (id int PRIMARY KEY, user_id int);
		ALTER TABLE full_before REPLICA IDENTITY FULL;
		CREATE TABLE nothing (id int, user_id int);
		ALTER TABLE nothing REPLICA IDENTITY NOTHING;
	`, ownedCatalog+`
  taken: {table: public.taken, owner: user_id, fields: [id]}
  changed: {table: public.changed, owner: user_id, fields: [id]}
  indexed: {table: public.indexed, owner: user_id, fields: [id]}
  full_before: {table: public.full_before, owner: user_id, fields: [id]}
  nothing: {table: public.nothing, owner: user_id, fields: [id]}
`)
	before := o.identities(t)
	plan := mustRun(t, append([]string{"setup", "--dry-run"}, o.flags(t, []string{"setup"})...)...)
	for _, line := range []string{`setup ran it, with: DROP PUBLICATION walhook`, `setup ran it, with: ALTER TABLE public.indexed REPLICA IDENTITY USING INDEX "by id"`,
		"setup ran it, with: ALTER TABLE public.dids REPLICA IDENTITY DEFAULT",
		"-- REVOKE EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, bytea"} {
		if !strings.Contains(plan, line) {
			t.Errorf("setup --dry-run does not say %q:\n%s", line, plan)
		}
	}
	o.setup(t)
	if now := o.identities(t); strings.Count(now, ":f") != 9 {
		t.Fatalf("after setup: %s", now)
	}
	o.setup(t) // changes nothing, and so notes nothing
	o.sql(t, "ALTER TABLE changed REPLICA IDENTITY USING INDEX changed_pkey", "CREATE PUBLICATION another FOR TABLE taken")

	flags := o.flags(t, []string{"teardown"})
	listed := mustRun(t, append([]string{"teardown", "--dry-run"}, flags...)...)
	for _, line := range []string{"to do: DROP PUBLICATION walhook;", "to do: ALTER TABLE public.nothing REPLICA IDENTITY NOTHING;",
		"unchanged: the replica identity of public.taken: publication another contains the table"} {
		if !strings.Contains(listed, line) {
			t.Errorf("teardown --dry-run does not say %q:\n%s", line, listed)
		}
	}
	if strings.Contains(listed, "full_before") || strings.Contains(o.identities(t), "dids:d") {
		t.Errorf("teardown --dry-run says, or did:\n%s", listed)
	}
	cmd := childCommand(t, "teardown", "--source", o.db.URL, "--slot", o.settings["slot"])
	cmd.Env = append(cmd.Env, "WALHOOK_OUTBOX="+o.outbox.URL) // as a flag it is to be dropped
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, want := o.identities(t), strings.NewReplacer("taken:d", "taken:f", "changed:d", "changed:i").Replace(before); got != want {
		t.Errorf("after teardown\n\t%s\nwant\n\t%s", got, want)
	}
	var left int
	if err := o.carrier.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_publication WHERE pubname = 'walhook')
		+ (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d things left: %v", left, err)
	}
	if got, want := o.acts(t), []string{"operator, walhook teardown: teardown (steps: 8)", "operator, walhook setup: setup ()", "operator, walhook setup: setup ()"}; !slices.Equal(got, want) {
		t.Errorf("the audit has %q, want %q", got, want)
	}
	again := strings.Split(mustRun(t, append([]string{"teardown"}, flags...)...), "\n")
	if !slices.Contains(again, "nothing to undo on the source") {
		t.Errorf("teardown again: %q", again)
	}
}

// acts are the lines of walhook audit, the newest first.
func (o *owned) acts(t *testing.T) (lines []string) {
	t.Helper()
	var list []struct{ Actor, Action, Detail string }
	text := mustRun(t, append([]string{"audit", "--json"}, o.flags(t, []string{"audit"})...)...)
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, one := range list {
		lines = append(lines, one.Actor+": "+one.Action+" ("+one.Detail+")")
	}
	return lines
}

// A teardown that drops the outbox, and the audit with it, leaves a line in the log.
func TestTeardown_OfTheOutboxLogsWhoDidIt(t *testing.T) {
	t.Parallel()
	o := newOwned(t, ownedTables, ownedCatalog)
	o.setup(t)
	cmd := childCommand(t, "teardown", "--source", o.db.URL, "--slot", o.settings["slot"], "--outbox", o.outbox.URL)
	out, err := cmd.CombinedOutput()
	if text := string(out); err != nil || !strings.Contains(text, `"action":"teardown"`) || !strings.Contains(text, "operator, walhook teardown") {
		t.Errorf("teardown --outbox: %v\n%s", err, text)
	}
}

// An outbox that is away keeps nobody from dropping the slot.
func TestTeardown_DropsTheSlotWithoutAnOutbox(t *testing.T) {
	t.Parallel()
	o := newOwned(t, ownedTables, ownedCatalog)
	o.setup(t)
	delete(o.settings, "outbox") // as a flag it is to be dropped
	cmd := childCommand(t, append([]string{"teardown"}, o.flags(t, []string{"teardown"})...)...)
	cmd.Env = append(cmd.Env, "WALHOOK_OUTBOX=postgres://127.0.0.1:1/none?sslmode=disable")
	out, err := cmd.CombinedOutput()
	if text := string(out); err != nil || !strings.Contains(text, "dropped slot") || !strings.Contains(text, "unchanged: replica identities") {
		t.Errorf("teardown says: %v\n%s", err, text)
	}
}
