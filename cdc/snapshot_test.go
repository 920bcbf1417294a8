package cdc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"walhook/cdc/source"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

const seeded = `
	ALTER TABLE items REPLICA IDENTITY FULL;
	INSERT INTO users SELECT n, 'http://example.com/' || n FROM generate_series(1, 2000) n;
	INSERT INTO items SELECT n, n % 2000 + 1, 'x' FROM generate_series(1, 10000) n;
	INSERT INTO notes SELECT n, n % 10000 + 1, 'x' FROM generate_series(1, 10000) n;
`

// write changes accounts and items until ctx ends, each in short transactions
// and each writer in a range of its own.
func (w *world) write(ctx context.Context, t *testing.T, writer int) {
	conn, err := pgx.Connect(t.Context(), w.URL)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for n := 1; ctx.Err() == nil; n++ {
		id, old := 100_000*(writer+1)+n, 4*rand.IntN(500)+writer+1
		// A statement that is cut off may still be committed.
		_, err := conn.Exec(t.Context(), strings.NewReplacer("NEW", fmt.Sprint(id), "OLD", fmt.Sprint(old), "NTH", fmt.Sprint(n)).Replace(`
			BEGIN;
			INSERT INTO users VALUES (NEW, 'http://new/NTH'); INSERT INTO items VALUES (NEW, NEW, 'new');
			UPDATE users SET web_hook_url = 'http://moved/NTH' WHERE id = OLD; UPDATE items SET user_id = NEW WHERE id = OLD;
			COMMIT;
			DELETE FROM items WHERE id = OLD + 4000 OR id = NEW - 5; DELETE FROM users WHERE id = NEW - 10`),
			pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// reconcile applies the stored changes to the snapshot's rows. It fails at a row that is
// inserted twice or changed without existing: one that was doubled or missed.
func reconcile(t *testing.T, table string, value int, state map[string]string, changes []schemas.Change) {
	t.Helper()
	wrong := 0
	for _, change := range changes {
		if change.Relation == nil || change.Relation.Name != table {
			continue
		}
		row := change.New
		if change.Kind == schemas.Delete {
			row = change.Old
		}
		id := string(row[0].Text)
		if _, there := state[id]; there != (change.Kind != schemas.Insert) {
			if wrong++; wrong <= 5 {
				t.Errorf("%s at %s: the row is there: %t", line(change), change.Position, there)
			}
		}
		if change.Kind == schemas.Delete {
			delete(state, id)
		} else {
			state[id] = string(row[value].Text)
		}
	}
}

func (w *world) table(t *testing.T, sql string) map[string]string {
	t.Helper()
	rows, err := w.conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	state := map[string]string{}
	var id, value string
	if _, err := pgx.ForEachRow(rows, []any{&id, &value}, func() error { state[id] = value; return nil }); err != nil {
		t.Fatal(err)
	}
	return state
}

func TestSnapshot_NeitherMissesNorDoublesConcurrentWrites(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), seeded)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for writer := range 4 {
		writers.Go(func() { w.write(ctx, t, writer) })
	}
	wrote := func(n int) func() bool {
		return func() bool {
			return one[int](t, w, "SELECT count(*) FROM users WHERE web_hook_url LIKE 'http://moved/%'") >= n
		}
	}
	eventually(t, "writes before the snapshot", patience, wrote(10))
	w.store.filling = func() error { // with the slot made, before it is read
		eventually(t, "writes while the snapshot is read", patience, wrote(200))
		return nil
	}
	w.setup(t)
	w.start(t)
	eventually(t, "writes after the snapshot", patience, wrote(400))
	cancel()
	writers.Wait()
	w.settle(t)

	accounts, owners := map[string]string{}, map[string]string{}
	for id, account := range w.store.accounts {
		accounts[id] = account.URL
	}
	for edge := range w.store.owners {
		if edge.Schema == "items" {
			owners[edge.Key] = edge.Account
		}
	}
	changes := w.store.stored()
	reconcile(t, "users", 1, accounts, changes)
	reconcile(t, "items", 1, owners, changes)
	if want := w.table(t, "SELECT id::text, web_hook_url FROM users"); !maps.Equal(accounts, want) {
		t.Errorf("%d accounts are known, %d are there, or their URLs differ", len(accounts), len(want))
	}
	if want := w.table(t, "SELECT id::text, user_id::text FROM items"); !maps.Equal(owners, want) {
		t.Errorf("%d owners are known, %d items are there, or they differ", len(owners), len(want))
	}
}

func TestSnapshot_ReadsAccountsAndOwnersThroughParents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `INSERT INTO users VALUES (7, 'http://example.com/'), (8, NULL), (9, '');
		INSERT INTO items VALUES (1, 7, 'x'), (2, 8, 'x'), (3, NULL, 'x'); INSERT INTO notes VALUES (11, 1, 'x'), (12, 2, 'x'), (13, 99, 'x')`)
	wantAccounts := map[string]schemas.Account{"7": {ID: "7", URL: "http://example.com/"}, "8": {ID: "8"}, "9": {ID: "9"}}
	if !reflect.DeepEqual(w.store.accounts, wantAccounts) {
		t.Errorf("accounts %v, want %v", w.store.accounts, wantAccounts)
	}
	wantOwners := map[schemas.OwnerEdge]bool{
		{Schema: "items", Key: "1", Account: "7"}: true, {Schema: "items", Key: "2", Account: "8"}: true, {Schema: "items", Key: "3"}: true,
		{Schema: "notes", Key: "11", Account: "7"}: true, {Schema: "notes", Key: "12", Account: "8"}: true,
	}
	if !maps.Equal(w.store.owners, wantOwners) {
		t.Errorf("owners %v, want %v", w.store.owners, wantOwners)
	}
}

// Snapshot and change of a row give the same text: both write as to_json does.
func TestSnapshot_ReadsTheColumnsOfAccountsThatRulesAskFor(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), `ALTER TABLE users ADD sku text, ADD plan json, ADD since timestamptz;
		INSERT INTO users VALUES (7, NULL, 'a"b', '{"x" : 1}', '2024-02-29 12:00:00+02'), (8, NULL, NULL, NULL, NULL), (9, NULL, repeat('x', 5000), NULL, NULL)`)
	w.cfg.Catalog = catalogOf(t, testCatalog+`
derive:
  - {hook: h, schema: items, when: {x: insert}, fields: {a: {account: sku}, b: {account: plan}, c: {account: since}, d: {account: missing}}}
`)
	w.setup(t)
	w.start(t)
	w.exec(t, "ALTER TABLE users REPLICA IDENTITY FULL; UPDATE users SET web_hook_url = ''")
	w.settle(t)
	want := map[string][]string{ // missing, plan, since, sku
		"7": {"null", `{"x" : 1}`, `"2024-02-29T10:00:00+00:00"`, `"a\"b"`},
		"8": {"null", "null", "null", "null"},
		"9": {"null", "null", "null", "null"},
	}
	changed := 0
	for _, change := range w.store.stored() {
		if change.Kind == schemas.Update {
			row, _ := w.cfg.Catalog.Bind(change.Relation).AccountOf(change.New)
			if changed++; !slices.Equal(row.Columns[1:], want[row.ID][1:]) || row.Columns[0] != "" {
				t.Errorf("a change of account %s brings %.40q", row.ID, row.Columns)
			}
		}
	}
	for id, columns := range want {
		if got := w.store.accounts[id].Columns; !slices.Equal(got, columns) {
			t.Errorf("account %s has %.40q, want %q", id, got, columns)
		}
	}
	if changed != 3 {
		t.Errorf("%d changes", changed)
	}
}

func TestSnapshot_AnInterruptedOneStartsOver(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), seeded)
	w.exec(t, "CREATE PUBLICATION walhook FOR ALL TABLES")
	for _, interruption := range []string{"the process is stopped", "the store is away"} {
		ctx, cancel := context.WithCancel(t.Context())
		w.store.filling = func() error {
			cancel()
			return errors.New(interruption)
		}
		if err := source.Snapshot(ctx, w.cfg, w.store, source.Refuse, quiet); err == nil {
			t.Fatal("the snapshot was finished")
		}
		err := w.start(t).ends(t)
		wantFault(t, err, "without a stored position", "walhook setup")
		if len(w.store.accounts) > 0 {
			t.Errorf("%d accounts were stored", len(w.store.accounts))
		}
	}
	w.store.filling = nil
	w.setup(t)
	w.start(t)
	w.settle(t)
	if len(w.store.accounts) != 2000 {
		t.Errorf("%d accounts were stored, want 2000", len(w.store.accounts))
	}
}

func TestSnapshot_IsDoneOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "INSERT INTO users VALUES (7, '')")
	point := w.store.flush()
	r := w.start(t)
	r.reads(t, patience)
	taken := w.store.taken
	w.setup(t) // while the reader runs: it must not be fenced
	if w.store.taken != taken {
		t.Error("setup took over from a reader that runs")
	}
	w.settle(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	stored := w.store.flush()
	w.setup(t)
	if now := w.store.flush(); now != stored || now <= point {
		t.Errorf("the position went from %s to %s", stored, now)
	}
}

func TestSnapshot_LeavesSomebodyElsesSlotAlone(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "CREATE PUBLICATION walhook FOR ALL TABLES")
	one[string](t, w, "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')", w.cfg.Slot)
	before := w.confirmed(t)
	wantFault(t, source.Snapshot(t.Context(), w.cfg, w.store, source.Refuse, quiet), "without a stored position", "pg_drop_replication_slot")
	if after := w.confirmed(t); after != before {
		t.Errorf("the slot went from %s to %s", before, after)
	}
}

// occupy keeps the slot active as another reader does, until the returned
// function is called.
func (w *world) occupy(t *testing.T) (release func()) {
	t.Helper()
	conn, err := w.cfg.WithDefaults().ConnectStream(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { source.CloseConn(context.WithoutCancel(t.Context()), conn) })
	t.Cleanup(release)
	if err := w.cfg.WithDefaults().StartStream(t.Context(), conn, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slot is active", patience, func() bool {
		return one[bool](t, w, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot)
	})
	return release
}

func TestSnapshot_ASlotThatIsReadWithoutAPositionIsNotSetUp(t *testing.T) {
	t.Parallel()
	begun := func(t *testing.T, w *world) {
		w.store.filling = func() error { return errors.New("interrupted") }
		if err := source.Snapshot(t.Context(), w.cfg, w.store, source.Refuse, quiet); err == nil {
			t.Fatal("the snapshot was finished")
		}
		w.store.filling = nil
	}
	foreign := func(t *testing.T, w *world) {
		one[string](t, w, "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')", w.cfg.Slot)
	}
	stored := func(t *testing.T, w *world) { w.setup(t) }
	for _, test := range []struct {
		name    string
		prepare func(*testing.T, *world)
		over    source.Over
		problem string // while it is read
		after   string // once it is released; "" for a snapshot
	}{
		{name: "a snapshot was begun", prepare: begun, problem: "in use, and its snapshot is not stored"},
		{name: "somebody else's", prepare: foreign, problem: "in use, and its snapshot is not stored", after: "without a stored position"},
		{name: "set up, a gap accepted", prepare: stored, over: source.Reconcile, problem: "in use"},
		{name: "the outbox follows another", prepare: func(t *testing.T, w *world) {
			w.setup(t)
			w.cfg.Slot += "_2"
			foreign(t, w)
		}, problem: "the outbox follows slot", after: "the outbox follows slot"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), "INSERT INTO users VALUES (7, ''); CREATE PUBLICATION walhook FOR ALL TABLES")
			test.prepare(t, w)
			release := w.occupy(t)
			wantFault(t, source.Snapshot(t.Context(), w.cfg, w.store, test.over, quiet), test.problem, "--slot")
			time.AfterFunc(500*time.Millisecond, release)
			err := source.Snapshot(t.Context(), w.cfg, w.store, test.over, quiet)
			if test.after != "" {
				wantFault(t, err, test.after, "--slot")
			} else if err != nil || w.store.flush() == 0 || len(w.store.accounts) != 1 {
				t.Errorf("once the slot is released: %v, %d accounts", err, len(w.store.accounts))
			}
		})
	}
}

func TestSnapshot_AcceptingAGapStartsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "INSERT INTO users VALUES (7, 'http://old/')")
	w.dropSlot(t)
	w.exec(t, "UPDATE users SET web_hook_url = 'http://new/'", "INSERT INTO items VALUES (1, 7, 'missed')")
	w.log = quiet
	stored := w.store.flush()
	w.wantGap(t, w.start(t).ends(t), stored, "no longer exists")
	if err := source.Snapshot(t.Context(), w.cfg, w.store, source.Reconcile, quiet); err != nil {
		t.Fatal(err)
	}
	if got := w.store.accounts["7"].URL; got != "http://new/" {
		t.Errorf("the account's URL is %s", got)
	}
	if !w.store.owners[schemas.OwnerEdge{Schema: "items", Key: "1", Account: "7"}] {
		t.Errorf("owners %v", w.store.owners)
	}
	w.start(t)
	w.exec(t, "INSERT INTO items VALUES (2, 7, 'seen')")
	w.settle(t)
	wantLines(t, w.lines(), []string{"insert public.items new(id*=2 user_id=7 name=seen)"})
}

// Creating a slot waits for every transaction of the server that writes.
func TestSnapshot_NamesWhoHoldsItUp(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	for _, test := range []struct {
		name    string
		hold    []string
		release string
		want    string
	}{
		{name: "a transaction", hold: []string{"SET application_name = 'report'", "BEGIN", "SELECT txid_current()"}, release: "COMMIT", want: "(report, transaction since"},
		{name: "a prepared transaction", hold: []string{"BEGIN", "SELECT txid_current()", "PREPARE TRANSACTION 'left over'"},
			release: "COMMIT PREPARED 'left over'", want: "prepared transaction 'left over'"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := unprepared(t, pgtest.NewDatabase(t, cluster), "CREATE PUBLICATION walhook FOR ALL TABLES")
			// The wait is for a lock, and may be longer than a role may wait.
			w.exec(t, "ALTER DATABASE "+w.Name+" SET lock_timeout = '1s'", "ALTER DATABASE "+w.Name+" SET statement_timeout = '1s'")
			holder := w.Connect(t)
			execOn(t, holder, test.hold...)
			core, logs := observer.New(zap.InfoLevel)
			named := make(chan struct{})
			var once sync.Once
			log := zap.New(core, zap.Hooks(func(entry zapcore.Entry) error {
				if entry.Message == "creating the slot waits for running transactions" {
					once.Do(func() { close(named) })
				}
				return nil
			}))
			done := make(chan error, 1)
			go func() { done <- source.Snapshot(t.Context(), w.cfg, w.store, source.Refuse, log) }()
			select {
			case <-named:
			case err := <-done:
				t.Fatalf("the snapshot ended first: %v", err)
			case <-time.After(patience):
				t.Error("nobody is named")
			}
			execOn(t, holder, test.release)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			found := slices.ContainsFunc(logs.All(), func(e observer.LoggedEntry) bool {
				blockers, _ := e.ContextMap()["blockers"].(string)
				return strings.Contains(blockers, test.want)
			})
			if !found {
				t.Errorf("logged %v, want %q", logs.All(), test.want)
			}
		})
	}
}

// Between the oldest transaction that runs when the slot is consistent and the newest that
// committed, a snapshot can list only so many that did not commit. Beyond that the server
// refuses the slot, and it is asked for again.
func TestSnapshot_AsksAgainWhereTheServersSnapshotIsTooLarge(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.NewDatabase(t, pgtest.NewCluster(t, pgcluster.Options{NoSync: true})), "CREATE PUBLICATION walhook FOR ALL TABLES")
	begin := func() (*pgx.Conn, string) {
		conn := w.Connect(t)
		execOn(t, conn, "BEGIN")
		var xid string
		if err := conn.QueryRow(t.Context(), "SELECT pg_current_xact_id()::xid::text").Scan(&xid); err != nil {
			t.Fatal(err)
		}
		return conn, xid
	}
	first, firstID := begin()
	done := make(chan error, 1)
	go func() { done <- source.Snapshot(t.Context(), w.cfg, w.store, source.Refuse, quiet) }()
	waitsFor := func(xid string) {
		t.Helper()
		eventually(t, "the slot waits for a transaction", patience, func() (waits bool) {
			select {
			case err := <-done:
				t.Fatalf("the snapshot ended first: %v", err)
			default:
			}
			const sql = `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND transactionid = $1::text::xid AND NOT granted)`
			if err := w.watch.QueryRow(t.Context(), sql, xid).Scan(&waits); err != nil {
				t.Fatal(err)
			}
			return waits
		})
	}
	waitsFor(firstID)
	second, secondID := begin()
	execOn(t, first, "COMMIT")
	waitsFor(secondID) // before the slot is consistent
	third, thirdID := begin()
	w.exec(t, `DO $$ BEGIN FOR i IN 1..3000 LOOP
			BEGIN INSERT INTO items VALUES (i, 7, 'never'); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END;
		END LOOP; END $$`, "INSERT INTO items VALUES (1, 7, 'kept')")
	execOn(t, second, "COMMIT")
	waitsFor(thirdID) // for the second time of asking: the first one was refused
	execOn(t, third, "COMMIT")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(w.store.owners) != 1 {
		t.Errorf("owners %v", w.store.owners)
	}
}

func TestSnapshot_SaysWhatTheServerLacks(t *testing.T) {
	t.Parallel()
	t.Run("no slot is free", func(t *testing.T) {
		t.Parallel()
		cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"max_replication_slots": "1"}})
		w := unprepared(t, pgtest.NewDatabase(t, cluster), "CREATE PUBLICATION walhook FOR ALL TABLES")
		w.exec(t, "SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
		wantFault(t, source.Snapshot(t.Context(), w.cfg, w.store, source.Refuse, quiet), "no free replication slot", "max_replication_slots")
	})
	t.Run("rows that the role may not see", func(t *testing.T) {
		t.Parallel()
		w := unprepared(t, pgtest.Database(t), "CREATE PUBLICATION walhook FOR ALL TABLES; ALTER TABLE items ENABLE ROW LEVEL SECURITY")
		w.cfg.URL = w.role(t, "REPLICATION", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %")
		wantFault(t, source.Snapshot(t.Context(), w.cfg, w.store, source.Refuse, quiet), "may not read", "GRANT SELECT")
	})
}

// A slot's name may be a keyword of replication commands.
func TestSnapshot_TakesEveryNameThatASlotMayHave(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"logical", "1st"} {
		t.Run(name, func(t *testing.T) {
			w := unprepared(t, pgtest.Database(t), "")
			w.cfg.Slot = name
			w.setup(t)
			if err := source.Snapshot(t.Context(), w.cfg, w.store, source.Reconcile, quiet); err != nil { // drops it, too
				t.Fatal(err)
			}
			w.start(t)
			w.settle(t)
		})
	}
}

// The stream would lack changes without an error if a publication is narrowed.
func TestReader_ANarrowedPublicationIsNoticedWhileReading(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "DROP TABLE notes")
	w.exec(t, "CREATE PUBLICATION walhook FOR TABLE users, items")
	w.setup(t)
	r := w.start(t, func(r *Reader) { r.watchEvery = 20 * time.Millisecond })
	w.settle(t)
	// The reader does not stop for a new table of the catalog.
	w.exec(t, "CREATE TABLE notes (id int PRIMARY KEY)")
	w.settle(t)
	w.exec(t, "ALTER PUBLICATION walhook DROP TABLE items")
	w.log = quiet
	wantGap(t, r.ends(t), "does not contain public.items")
}

// PostgreSQL 18 passes over a missing publication with a warning in its own
// log; elsewhere, one that is gone for a moment between two changes goes
// unnoticed too.
func TestReader_ARecreatedPublicationIsNoticedWhileReading(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	r := w.start(t, func(r *Reader) { r.watchEvery = 20 * time.Millisecond })
	w.settle(t)
	w.log = quiet
	w.exec(t, "BEGIN; DROP PUBLICATION walhook; CREATE PUBLICATION walhook FOR ALL TABLES; COMMIT")
	wantGap(t, r.ends(t), "recreated")
}

func TestCheckPublication_SetupDoesNotFixAGapInSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.narrow(t)
	wantGap(t, source.CheckPublication(t.Context(), w.cfg, w.store.checkpoint), "does not contain public.items")
	if err := source.CheckPublication(t.Context(), w.cfg, schemas.Checkpoint{}); err != nil {
		t.Errorf("a source of which nothing is stored: %v", err)
	}
}
