package outbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgtest"
)

// releases are the versions of the outbox that have been released, each with
// testdata/release_NNN.sql: what such an outbox held, and with
// testdata/release_NNN_running.sql: what its processes said to it.
var releases = []int32{1}

// atRelease is an outbox as the release left it.
func atRelease(t *testing.T, release int32) *world {
	t.Helper()
	w := worldIn(t, pgtest.Database(t))
	w.exec(t, "CREATE SCHEMA walhook")
	migrator, err := loadMigrator(t.Context(), w.conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.MigrateTo(t.Context(), release); err != nil {
		t.Fatal(err)
	}
	if err := makePartitions(t.Context(), w.conn, 0); err != nil {
		t.Fatal(err)
	}
	w.db.Exec(t, releaseFile(t, release, ""))
	return w
}

func releaseFile(t *testing.T, release int32, what string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("release_%03d%s.sql", release, what)))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestUpgrade_KeepsWhatEachReleaseStored(t *testing.T) {
	for _, release := range releases {
		t.Run(fmt.Sprint(release), func(t *testing.T) {
			t.Parallel()
			w := atRelease(t, release)
			if err := Migrate(t.Context(), w.db.URL); err != nil {
				t.Fatal(err)
			}
			w.open(t)
			if err := w.store.CheckMigrated(t.Context()); err != nil {
				t.Error(err)
			}
			wantLines(t, all[string](t, w, `SELECT concat_ws(' ', account, webhook, state, hook, http_verb, delivery, revision) FROM walhook.endpoint ORDER BY id`),
				"7 account active records post realtime 3", "8 account disabled records post realtime 2", "9 account cleared records post realtime 5")
			endpoints, err := w.store.endpoints(t.Context(), []int64{1})
			if err != nil || len(endpoints) != 1 || !slices.Equal(endpoints[0].Secrets, []string{"whsec_c2V2ZW4="}) {
				t.Errorf("%d endpoints, or another secret: %v", len(endpoints), err)
			}

			f := &feed{world: w, publisher: newPublisher(t, w)}
			checkpoint, err := f.publisher.TakeOver(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(checkpoint.Position, checkpoint.Flush, checkpoint.Source.Slot); got != "0/16B3748#2 0/16B3800walhook" {
				t.Errorf("checkpoint %s", got)
			}
			if f.publisher.view.NextID != 5 {
				t.Errorf("next event is %d, want 5", f.publisher.view.NextID)
			}
			s, _ := f.join(t)
			if events := f.tail(t, s, TailQuery{Unsettled: true}); len(events) != 1 || events[0].ID != 4 || string(events[0].Body) != "{}" {
				t.Errorf("unsettled: %v", events)
			}
			due, err := s.DueRetries(t.Context(), RetryQuery{Endpoint: 1, Now: time.Now(), Limit: 10, MaxBytes: 1 << 20})
			if err != nil || len(due.Events) != 1 || due.Events[0].ID != 2 || due.Events[0].Attempts != 1 {
				t.Errorf("due: %v %v", due, err)
			}
		})
	}
}

// What the processes of a release say to the outbox goes on working while they
// are replaced one by one, but for what the file marks.
func TestUpgrade_AnOlderProcessGoesOn(t *testing.T) {
	for _, release := range releases {
		t.Run(fmt.Sprint(release), func(t *testing.T) {
			t.Parallel()
			w := atRelease(t, release)
			if err := Migrate(t.Context(), w.db.URL); err != nil {
				t.Fatal(err)
			}
			statements := strings.Split(releaseFile(t, release, "_running"), ";\n")
			if len(statements) < 10 {
				t.Fatalf("%d statements", len(statements))
			}
			for _, statement := range statements {
				if statement = strings.TrimSpace(statement); statement == "" {
					continue
				}
				_, err := w.conn.Exec(t.Context(), statement)
				refused := strings.Contains(statement, "-- refused")
				if refused != (err != nil) {
					t.Errorf("%s\n%v", statement, err)
				}
			}
		})
	}
}

// Between setup and its replacement an older sender meets events that carry the
// body of another. It can neither read them nor keep them as dead letters, so it
// sends nobody an empty body.
func TestUpgrade_AnOlderProcessSendsNoEmptyBody(t *testing.T) {
	f := newFeedOf(t, newWorld(t), smallCatalog)
	f.webhook(t, "7", "a", "hook = 'records'")
	f.webhook(t, "7", "b", "hook = 'records'")
	f.commit(t, dids.Insert(1, 7, largeText(1, sharedFrom)))
	session, _ := f.join(t)
	shared := f.tail(t, session, TailQuery{Shards: allShards()})[1]
	for name, statement := range map[string]string{
		"the log, release 1": `SELECT id, endpoint, revision, record, webhook_id, schema, type, committed_at, CASE WHEN wanted THEN body END
			FROM (SELECT e.*, true AS wanted FROM walhook.event e WHERE e.id = $1) e`,
		"the log, release 2": `SELECT id, endpoint, revision, record, webhook_id, schema, type, committed_at, appended_at, format, size, CASE WHEN size <= 100000 THEN body END
			FROM (SELECT e.*, octet_length(body) AS size FROM walhook.event e WHERE e.id = $1) e`,
		"what is due": `SELECT e.id, e.endpoint, e.revision, e.body FROM walhook.event e WHERE e.id = $1`,
		"a dead letter": `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, format, body)
			SELECT endpoint, id, record, webhook_id, schema, type, committed_at, 1, 'expired', octet_length(body), format, body FROM walhook.event WHERE id = $1`,
		"a replay": `INSERT INTO walhook.event (id, endpoint, revision, record, webhook_id, schema, type, format, committed_at, appended_at, body, replayed)
			SELECT id + 1000, endpoint, 1, record, webhook_id, schema, type, format, committed_at, clock_timestamp(), body, true FROM walhook.event WHERE id = $1`,
	} {
		if _, err := f.conn.Exec(t.Context(), statement, shared.ID); err == nil {
			t.Errorf("%s: an older process may do that", name)
		}
	}
	if empty := one[int](t, f.world, "SELECT octet_length(body) FROM walhook.event WHERE id = $1", shared.ID); empty != 0 {
		t.Fatalf("the body of event %d is its own", shared.ID)
	}
}

// A reader that holds a table for long holds up the migration, but not those
// who append meanwhile.
func TestMigrate_DoesNotStandInTheWayOfAppendsWhileItWaits(t *testing.T) {
	t.Parallel()
	w := atRelease(t, 1)
	holder := w.begin(t)
	execTx(t, holder, "SELECT FROM walhook.event")
	done := make(chan error, 1)
	go func() { done <- Migrate(t.Context(), w.db.URL) }()

	appended, slowest := 0, time.Duration(0)
	waited := func() bool { return slowest >= migrateLockTimeout/4 } // behind the migration, which has begun
	most := migrateTries / 2 * migrateLockTimeout
	for began := time.Now(); time.Since(began) < 2*migrateLockTimeout+migratePause || !waited() && time.Since(began) < most; appended++ {
		start := time.Now()
		w.exec(t, `INSERT INTO walhook.event SELECT max(id) + 1, 1, 3, 'dids:1', 'evt_x', 'dids', 'update', now(), now(), '{}' FROM walhook.event`)
		slowest = max(slowest, time.Since(start))
	}
	if slowest > migrateLockTimeout+time.Second {
		t.Errorf("an append waited for %s", slowest)
	}
	if !waited() {
		t.Errorf("no append of %d ever waited: the migration was not there", appended)
	}
	select {
	case err := <-done:
		t.Fatalf("migrated under a lock: %v", err)
	default:
	}
	commit(t, holder)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMigrate_NamesWhoHoldsItUp(t *testing.T) {
	t.Parallel()
	w := atRelease(t, 1)
	other, err := pgx.Connect(t.Context(), w.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	tx := w.begin(t)
	execTx(t, tx, "SELECT FROM walhook.event")
	want := fmt.Sprintf("pid %d (", tx.Conn().PgConn().PID())
	if got := lockHolders(t.Context(), other); !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %s…", got, want)
	}
}

// Until migration 047 an account's ordering was that of its own URL alone.
func TestUpgrade_AnOrderingBecomesTheAccounts(t *testing.T) {
	t.Parallel()
	w := worldIn(t, pgtest.Database(t))
	w.exec(t, "CREATE SCHEMA walhook")
	migrator, err := loadMigrator(t.Context(), w.conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.MigrateTo(t.Context(), 46); err != nil {
		t.Fatal(err)
	}
	w.exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, reason, secret, ordering, ended_at, deleted_at) VALUES
		('7', 'account', 'https://example.com', 'active', '', '', 'strict', NULL, NULL), ('7', 'a', 'https://example.com', 'active', '', '', 'record', NULL, NULL),
		('8', 'account', NULL, 'cleared', 'x', '', 'none', NULL, NULL), ('8', 'b', 'https://example.com', 'active', '', '', 'record', NULL, NULL),
		('9', 'account', 'https://example.com', 'active', '', '', 'strict', now(), NULL), ('9', 'c', 'https://example.com', 'active', '', '', 'record', now(), NULL),
		('10', 'ended-7', 'https://example.com', 'active', '', '', 'strict', now(), now()), ('10', 'd', 'https://example.com', 'active', '', '', 'record', NULL, NULL),
		('', 'f', 'https://example.com', 'active', '', '', 'record', NULL, NULL)`)
	w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, reason) SELECT id, id, 'dids:1', 0, '' FROM walhook.endpoint WHERE webhook IN ('a', 'b')`)
	if err := Migrate(t.Context(), w.db.URL); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, w, "SELECT concat_ws(' ', account, webhook, ordering, revision) FROM walhook.endpoint ORDER BY id"),
		"7 account strict 1", "7 a strict 2", "8 account none 1", "8 b none 2", "9 account strict 1", "9 c record 1", "10 ended-7 strict 1", "10 d record 1", " f record 1")
	wantLines(t, all[string](t, w, "SELECT account || ' ' || ordering FROM walhook.account_ordering ORDER BY account"), "7 strict", "8 none")
	wantLines(t, all[string](t, w, "SELECT p.webhook FROM walhook.retry r JOIN walhook.endpoint p ON p.id = r.endpoint WHERE r.next_at IS NOT NULL"), "b")
}
