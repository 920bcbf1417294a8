package carrier_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

func urlFor(i int) string {
	if i%7 == 6 {
		return ""
	}
	return fmt.Sprintf("http://127.0.0.1:9/%d", carrier.AccountID(i))
}

func seed(t *testing.T, db *pgtest.DB, accounts int) {
	t.Helper()
	conn := db.Connect(t)
	if err := carrier.Create(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	keepOldRows(t, db)
	if err := carrier.Seed(t.Context(), conn, accounts, 1, urlFor); err != nil {
		t.Fatal(err)
	}
}

func newActivity(t *testing.T, db *pgtest.DB, o carrier.Options) *carrier.Activity {
	t.Helper()
	o.URLFor, o.Seed = urlFor, 1
	activity, err := carrier.NewActivity(t.Context(), db.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(activity.Close)
	return activity
}

// runUntil runs an activity until enough is true of what it has done, however long
// that takes a busy machine.
func runUntil(t *testing.T, activity *carrier.Activity, rate float64, enough func(carrier.Stats) bool) carrier.Stats {
	t.Helper()
	const patience = 90 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil && !enough(activity.Stats()) {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}()
	stats, err := activity.Run(ctx, rate, patience)
	if err != nil {
		t.Fatal(err)
	}
	if !enough(stats) {
		t.Fatalf("not enough in %s: %+v", patience, stats)
	}
	return stats
}

func TestActivity_ShowsEverySchemaAndTypeAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	seed(t, db, 4)
	activity := newActivity(t, db, carrier.Options{Accounts: 4})
	stats := runUntil(t, activity, 40, func(stats carrier.Stats) bool {
		tour := 0
		for name, n := range stats.Actions {
			if strings.HasPrefix(name, "tour: ") {
				tour += n
			}
		}
		return tour == 44 // of four accounts
	})
	conn := db.Connect(t)
	var want []string
	for _, schema := range carrier.Schemas() {
		for _, kind := range []string{"delete", "insert", "update"} {
			want = append(want, schema+" "+kind)
		}
	}
	want = append(want, "sms_enablement update")
	slices.Sort(want)
	got := texts(t, conn, `SELECT DISTINCT schema || ' ' || type COLLATE "C" AS what FROM ledger.expected ORDER BY what`)
	if !slices.Equal(got, want) {
		t.Errorf("expected events: got %q\nwant %q\n%+v", got, want, stats)
	}
	messages := texts(t, conn, `SELECT 'x' FROM ledger.expected WHERE schema = 'sms_enablement'`)
	rows := texts(t, conn, `SELECT 'x' FROM async_results`)
	if len(rows) == 0 || len(messages) <= len(rows) {
		t.Errorf("%d results, %d of them rows: want both ways in", len(messages), len(rows))
	}
}

func TestActivity_ConvincesTheLedger(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	seed(t, db, 12)
	conn := db.Connect(t)
	if n, err := carrier.Count(t.Context(), conn); err != nil || n != 0 {
		t.Fatalf("seeding made %d expected events, err %v", n, err)
	}
	activity := newActivity(t, db, carrier.Options{Accounts: 12, ClearURLs: true, BulkRows: 50})
	slot := slotOf(t, conn)
	stats := runUntil(t, activity, 0, func(stats carrier.Stats) bool {
		return stats.Committed >= 400 && stats.RolledBack > 0
	})
	t.Logf("%+v", stats)
	if stats.Unknown > 0 {
		t.Errorf("stats: %+v", stats)
	}

	t.Run("no private column", func(t *testing.T) {
		leaks := texts(t, conn, `SELECT body FROM ledger.expected WHERE body ~ 'never-published|password_hash|created_at|wholesale'`)
		if len(leaks) > 0 {
			t.Errorf("leaked: %s", leaks[0])
		}
	})
	t.Run("a life has an order", func(t *testing.T) {
		lives := texts(t, conn, `
			SELECT concat_ws(' ', account, schema, record, string_agg(left(type, 1), '' ORDER BY seq))
			FROM ledger.expected e WHERE record <> '' AND account NOT IN (SELECT account FROM ledger.cleared)
			GROUP BY account, schema, record`)
		life := regexp.MustCompile(` (i?u*d)*i?u*$`)
		for _, l := range lives {
			if !life.MatchString(l) {
				t.Errorf("an impossible life: %s", l)
			}
		}
	})
	t.Run("edges are right", func(t *testing.T) {
		wrong := texts(t, conn, `
			SELECT d.id::text FROM dids d LEFT JOIN ledger.owner o ON o.schema = 'dids' AND o.record = d.id::text
			WHERE o.account IS DISTINCT FROM d.user_id::text`)
		urls := texts(t, conn, `
			SELECT u.id::text FROM users u FULL JOIN ledger.account a ON a.id = u.id::text
			WHERE coalesce(u.web_hook_url, '') IS DISTINCT FROM a.url`)
		if len(wrong)+len(urls) > 0 {
			t.Errorf("wrong owners of dids %v, wrong URLs of %v", wrong, urls)
		}
	})
	t.Run("its order is the commit order", func(t *testing.T) {
		seqs := map[string]int64{}
		n := 0
		for _, change := range texts(t, conn, slot) {
			seq, record := ledgerRow(t, change)
			if seq < seqs[record] {
				t.Errorf("%s: %d was committed after %d", record, seq, seqs[record])
			}
			seqs[record] = seq
			n++
		}
		if want, err := carrier.Count(t.Context(), conn); err != nil || n != want {
			t.Errorf("the WAL holds %d ledger rows, the table %d, err %v", n, want, err)
		}
	})
	t.Run("changes are counted", func(t *testing.T) {
		counts, err := carrier.Changes(t.Context(), conn)
		if err != nil || counts["dids"]["update"] == 0 || counts["async_results"]["insert"] == 0 {
			t.Errorf("%v, err %v", counts, err)
		}
	})
}

// slotOf makes a slot for test_decoding, by which the order of commits is seen,
// and returns the query for the ledger's rows in it.
func slotOf(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	var name string
	err := conn.QueryRow(t.Context(),
		`SELECT slot_name FROM pg_create_logical_replication_slot(current_database() || '_order', 'test_decoding')`).Scan(&name)
	if err != nil {
		t.Skipf("this PostgreSQL has no test_decoding: %v", err)
	}
	return `SELECT data FROM pg_logical_slot_get_changes(current_database() || '_order', NULL, NULL)
		WHERE data LIKE 'table ledger.expected: INSERT:%'`
}

var ledgerColumns = regexp.MustCompile(`INSERT: seq\[bigint\]:(\d+) .*?account\[text\]:'(.*?)' schema\[text\]:'(.*?)' type\[text\]:'.*?' record\[text\]:'(.*?)'`)

func ledgerRow(t *testing.T, change string) (seq int64, record string) {
	t.Helper()
	match := ledgerColumns.FindStringSubmatch(change)
	if match == nil {
		t.Fatalf("unknown change %s", change)
	}
	seq, err := strconv.ParseInt(match[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return seq, strings.Join(match[2:], " ")
}

func TestActivity_IsReproducible(t *testing.T) {
	t.Parallel()
	var runs [2][]string
	for i := range runs {
		db := pgtest.Database(t)
		seed(t, db, 3)
		runUntil(t, newActivity(t, db, carrier.Options{Accounts: 3, Workers: 1}), 0, func(stats carrier.Stats) bool {
			return stats.Committed >= 150
		})
		runs[i] = texts(t, db.Connect(t), `SELECT account || body FROM ledger.expected ORDER BY seq`)
	}
	common := min(len(runs[0]), len(runs[1]))
	if common < 100 {
		t.Fatalf("only %d events in common", common)
	}
	for i := range common {
		if runs[0][i] != runs[1][i] {
			t.Fatalf("event %d: %s, and again %s", i, runs[0][i], runs[1][i])
		}
	}
}

func TestActivity_GoesOnThroughACrash(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	db := pgtest.NewDatabase(t, cluster)
	seed(t, db, 4)
	activity := newActivity(t, db, carrier.Options{Accounts: 4})
	type outcome struct {
		stats carrier.Stats
		err   error
	}
	done := make(chan outcome, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		stats, err := activity.Run(ctx, 200, time.Minute)
		done <- outcome{stats, err}
	}()
	committed := func(more int) {
		t.Helper()
		before := activity.Stats().Committed
		for deadline := time.Now().Add(90 * time.Second); activity.Stats().Committed < before+more; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("stuck: %+v", activity.Stats())
			}
		}
	}
	for range 2 {
		committed(20)
		if err := cluster.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	committed(20)
	cancel()
	end := <-done
	if end.err != nil || end.stats.Unknown == 0 {
		t.Errorf("%+v, err %v", end.stats, end.err)
	}
}
