package endtoend

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// resyncCatalog has items and what belongs through them. Each n comes from one sequence,
// so that a larger one of a record is a later state.
const resyncCatalog = `
account: {table: public.account, id: id, url: url, parent: parent}
schemas:
  accounts: {table: public.account, owner: id, fields: [id, url]}
  items: {table: public.item, owner: account, fields: [id, n, text]}
  parts: {table: public.part, owner: {column: item, schema: items}, fields: [id, n]}
  bare: {table: public.bare, owner: account, fields: [account]}
`

const resyncTables = `
ALTER TABLE account ADD parent bigint;
ALTER TABLE item ADD text text NOT NULL DEFAULT 'it''s "quoted" é\';
CREATE SEQUENCE state;
CREATE TABLE part (id text PRIMARY KEY, item bigint NOT NULL REFERENCES item ON DELETE CASCADE, n bigint NOT NULL);
CREATE INDEX ON part (item);
CREATE TABLE bare (account bigint)`

// resyncShop is a shop whose accounts have records items each, and a part for each tenth.
func resyncShop(t *testing.T, db, outbox *pgtest.DB, accounts, records int) *shop {
	t.Helper()
	s := newShopWithoutSetup(t, db, outbox, accounts, func(string) string { return "http://127.0.0.1:9/hook" })
	if err := os.WriteFile(s.catalog, []byte(resyncCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := db.Connect(t)
	defer conn.Close(context.WithoutCancel(t.Context()))
	sql := resyncTables + fmt.Sprintf(`;
		INSERT INTO item (id, account, n) SELECT a * 1000000 + i, a, nextval('state') FROM generate_series(1, %d) a, generate_series(1, %d) i;
		INSERT INTO part (id, item, n) SELECT 'part ' || id, id, nextval('state') FROM item WHERE id %% 10 = 0;
		ANALYZE`, accounts, records)
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
	mustRun(t, s.setup()...)
	return s
}

// disturb changes the records of all accounts in random ways until ctx ends.
func (s *shop) disturb(t *testing.T, ctx context.Context, records int, changes *atomic.Int64) error {
	group, _ := errgroup.WithContext(context.WithoutCancel(ctx))
	for worker := range 3 {
		group.Go(func() error {
			conn, err := pgx.Connect(t.Context(), s.db.URL)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for ctx.Err() == nil {
				account := random.IntN(s.accounts) + 1
				id := account*1_000_000 + random.IntN(records) + 1
				if id%10 != 0 && random.IntN(3) == 0 {
					account = random.IntN(s.accounts) + 1 // its record moves, or is another's
				}
				sql := fmt.Sprintf("UPDATE item SET n = nextval('state'), account = %d WHERE id = %d", account, id)
				switch random.IntN(6) {
				case 0:
					sql = fmt.Sprintf("DELETE FROM item WHERE id = %d", id)
				case 1:
					sql = fmt.Sprintf("INSERT INTO item (id, account, n) VALUES (%d, %d, nextval('state')) ON CONFLICT DO NOTHING", id, id/1_000_000)
				case 2:
					sql = fmt.Sprintf("UPDATE part SET n = nextval('state') WHERE item = %d", id/10*10)
				case 3:
					sql = fmt.Sprintf("INSERT INTO part (id, item, n) SELECT 'part ' || id, id, nextval('state') FROM item WHERE id = %d ON CONFLICT DO NOTHING", id/10*10)
				}
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					if strings.Contains(err.Error(), "foreign key") || strings.Contains(err.Error(), "deadlock") {
						continue
					}
					return fmt.Errorf("%s: %w", sql, err)
				}
				changes.Add(1)
			}
			return nil
		})
	}
	return group.Wait()
}

// toldState is an endpoint's receiver: what it knows when it applies events in their order.
type toldState struct {
	records map[string]string // by schema and id: data
	synced  int               // events of a resync
	done    []string          // bodies of schema resync
	kinds   map[string]int
}

// applied applies the events of an endpoint with larger ids than after, in the order of
// the log, and checks that no record goes backwards.
func applied(t *testing.T, conn *pgx.Conn, endpoint, after int64) toldState {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT webhook_id, record, convert_from(body, 'UTF8') FROM walhook.event WHERE endpoint = $1 AND id > $2 ORDER BY id`, endpoint, after)
	if err != nil {
		t.Fatal(err)
	}
	to := toldState{records: map[string]string{}, kinds: map[string]int{}}
	states, ids := map[string]int64{}, map[string]bool{}
	var id, record, body string
	_, err = pgx.ForEachRow(rows, []any{&id, &record, &body}, func() error {
		if ids[id] {
			t.Errorf("the id %s is used twice", id)
		}
		ids[id] = true
		var event struct{ Type, Schema, Data string }
		if err := json.Unmarshal([]byte(body), &event); err != nil {
			return err
		}
		if event.Schema == "resync" {
			to.done = append(to.done, body)
			return nil
		}
		var data struct{ N int64 }
		if err := json.Unmarshal([]byte(event.Data), &data); err != nil {
			return err
		}
		if strings.HasPrefix(id, "sync_") {
			to.synced++
			to.kinds[event.Type]++
		}
		if data.N < states[record] {
			t.Errorf("%s goes from %d back to %d by %s %s", record, states[record], data.N, id, body)
		}
		if data.N == states[record] && to.records[record] == "" && states[record] != 0 && event.Type != "delete" && strings.HasPrefix(id, "sync_") {
			t.Errorf("%s was gone and is told again by %s %s", record, id, body)
		}
		states[record] = max(states[record], data.N)
		if to.records[record] = event.Data; event.Type == "delete" {
			delete(to.records, record)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// present is what an account has in the source.
func (s *shop) present(t *testing.T, account int) map[string]string {
	t.Helper()
	conn := s.db.Connect(t)
	rows, err := conn.Query(t.Context(), `
		SELECT 'accounts:' || id, row_to_json(r)::text FROM (SELECT id, url FROM account WHERE id = $1) r
		UNION ALL SELECT 'items:' || id, row_to_json(r)::text FROM (SELECT id, n, text FROM item WHERE account = $1) r
		UNION ALL SELECT 'parts:' || id, row_to_json(r)::text FROM (SELECT p.id, p.n FROM part p JOIN item i ON i.id = p.item WHERE i.account = $1) r`, account)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]string{}
	var name, data string
	if _, err := pgx.ForEachRow(rows, []any{&name, &data}, func() error { records[name] = data; return nil }); err != nil {
		t.Fatal(err)
	}
	return records
}

func wantRecords(t *testing.T, got, want map[string]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	n := 0
	for name := range want {
		if got[name] != want[name] {
			if n++; n < 6 {
				t.Errorf("%s is told as %q, want %q", name, got[name], want[name])
			}
		}
	}
	for name := range got {
		if _, there := want[name]; !there {
			if n++; n < 6 {
				t.Errorf("%s is told as %q, and is not there", name, got[name])
			}
		}
	}
	t.Errorf("%d of %d records are wrong", n, len(want))
}

// lastEvent is the id of the newest event of the log, and the endpoint of an account.
func (s *shop) lastEvent(t *testing.T, conn *pgx.Conn, account int) (endpoint, last int64) {
	t.Helper()
	err := conn.QueryRow(t.Context(), `SELECT id, (SELECT coalesce(max(id), 0) FROM walhook.event) FROM walhook.endpoint WHERE account = $1 AND webhook = 'account'`,
		strconv.Itoa(account)).Scan(&endpoint, &last)
	if err != nil {
		t.Fatal(err)
	}
	return endpoint, last
}

func awaitResyncs(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	eventually(t, 2*time.Minute, func() bool {
		var open int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.resync WHERE done_at IS NULL").Scan(&open); err != nil {
			t.Fatal(err)
		}
		return open == 0
	})
}

// A receiver that starts empty while everything changes: what it is told from the request
// on is enough, and no record goes backwards.
func TestResync_TellsThePresentStateWhileEverythingChanges(t *testing.T) {
	t.Parallel()
	for name, killed := range map[string]bool{"undisturbed": false, "with a publisher killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const records = 1500
			s := resyncShop(t, pgtest.Database(t), pgtest.Database(t), 3, records)
			publisher, conn := s.publisher(t), s.outbox.Connect(t)
			startAll(t, publisher)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var changes atomic.Int64
			var over atomic.Bool
			var group errgroup.Group
			group.Go(func() error { return s.disturb(t, ctx, records, &changes) })
			eventually(t, patience, func() bool { return changes.Load() > 200 })
			endpoints, lasts := map[int]int64{}, map[int]int64{}
			for _, account := range []int{1, 2} { // two at once
				endpoints[account], lasts[account] = s.lastEvent(t, conn, account)
				if out := mustRun(t, "resync", strconv.Itoa(account), "--outbox", s.outbox.URL); !strings.Contains(out, "request ") {
					t.Errorf("walhook resync printed %s", out)
				}
			}
			if killed {
				group.Go(func() error {
					for i := 0; i < 4 && !over.Load(); i++ {
						time.Sleep(400 * time.Millisecond)
						_ = publisher.end(syscall.SIGKILL)
						if err := publisher.start(t); err != nil {
							return err
						}
					}
					return nil
				})
			}
			awaitResyncs(t, conn)
			over.Store(true)
			stop()
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			s.storedAll(t)
			for account, endpoint := range endpoints {
				to := applied(t, conn, endpoint, lasts[account])
				wantRecords(t, to.records, s.present(t, account))
				if len(to.done) != 1 || to.synced < 100 || to.kinds["update"] != to.synced {
					t.Fatalf("%d records of the resync, %v, and %d ends of it", to.synced, to.kinds, len(to.done))
				}
				want := regexp.MustCompile(fmt.Sprintf(`^\{"type":"update","schema":"resync","status":"done","verbose":"%d records","request":"\d+"\}$`, to.synced))
				if !want.MatchString(to.done[0]) {
					t.Errorf("it ends with %s, want %s", to.done[0], want)
				}
				t.Logf("account %d: %d records of the resync, %d changes meanwhile", account, to.synced, changes.Load())
			}
		})
	}
}

// A transaction that waits for a synchronous standby is streamed before anybody sees it. A
// resync must not tell the state before it.
func TestResync_WaitsForWhatAStandbyHides(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	s := resyncShop(t, pgtest.NewDatabase(t, cluster), pgtest.Database(t), 2, 20)
	publisher, conn, source := s.publisher(t), s.outbox.Connect(t), s.db.Connect(t)
	startAll(t, publisher)
	exec := func(sql string) {
		t.Helper()
		if _, err := source.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	endpoint, last := s.lastEvent(t, conn, 1)
	exec("SET synchronous_commit = local")
	exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	exec("SELECT pg_reload_conf()")
	hidden := make(chan error, 1)
	other := s.db.Connect(t)
	go func() {
		_, err := other.Exec(t.Context(), "UPDATE item SET n = nextval('state') WHERE id IN (1000001, 1000002)")
		hidden <- err
	}()
	eventually(t, patience, func() bool { // it is told
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.event WHERE endpoint = $1 AND id > $2", endpoint, last).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 2
	})
	mustRun(t, "resync", "1", "--outbox", s.outbox.URL)
	time.Sleep(1500 * time.Millisecond) // in which one that does not wait tells the state that it sees
	exec("ALTER SYSTEM RESET synchronous_standby_names")
	exec("SELECT pg_reload_conf()")
	if err := <-hidden; err != nil {
		t.Fatal(err)
	}
	awaitResyncs(t, conn)
	to := applied(t, conn, endpoint, last)
	wantRecords(t, to.records, s.present(t, 1))
	if to.synced != 23 {
		t.Errorf("%d records of the resync, want 23", to.synced)
	}
}

// An idle source, and what cannot be resynced.
func TestResync_OfAQuietAccount(t *testing.T) {
	t.Parallel()
	// A server of its own, since a resync waits for every transaction of the source's.
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	s := resyncShop(t, pgtest.NewDatabase(t, cluster), pgtest.Database(t), 2, 20)
	publisher, conn := s.publisher(t), s.outbox.Connect(t)
	s.db.Exec(t, `INSERT INTO bare VALUES (1)`)
	startAll(t, publisher)
	s.storedAll(t)
	if out := mustRun(t, "resync", "1", "--dry-run", "--outbox", s.outbox.URL); !strings.Contains(out, "account 1, webhook account: 2") || !strings.Contains(out, " records to send") {
		t.Errorf("--dry-run printed %s", out)
	}
	endpoint, last := s.lastEvent(t, conn, 1)
	began := time.Now()
	if out := mustRun(t, "resync", "1", "--schema", "items", "--wait", "--outbox", s.outbox.URL); !strings.Contains(out, "records sent: 20") {
		t.Errorf("walhook resync printed %s", out)
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("an idle source took %s: it waits for the reader's next advance", took)
	}
	if to := applied(t, conn, endpoint, last); to.synced != 20 || len(to.records) != 20 {
		t.Errorf("%d records", to.synced)
	}
	for args, want := range map[string]string{
		"1 --schema nothing": `the catalog has no schema "nothing"`, "9": "account 9 has no URL and no webhook of records", "1 --webhook nothing": "webhook not found",
	} {
		out, err := walhook(t, append(append([]string{"resync"}, strings.Fields(args)...), "--outbox", s.outbox.URL)...)
		if err == nil || !strings.Contains(fmt.Sprint(out, err), want) {
			t.Errorf("walhook resync %s printed %s, %v, want %s", args, out, err, want)
		}
	}
	out, err := walhook(t, "resync", "1", "--schema", "bare", "--wait", "--outbox", s.outbox.URL)
	if err == nil || !strings.Contains(fmt.Sprint(out, err), "the rows of the schema cannot be read: its table has no key") {
		t.Errorf("a table without a key: %s, %v", out, err)
	}
}
