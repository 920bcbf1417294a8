package endtoend

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// The outbox's own failover: its URL names two servers, the primary is killed while
// the carrier is busy, and the standby is promoted. docs/OPERATIONS.md, "The outbox's
// own failover", says what an operator does.

const (
	failoverAccounts = 24
	failoverRecords  = 4
	failoverRate     = 250
	failoverShort    = time.Second
	// failoverLease is how long a sender may do without its outbox before another
	// takes its shards.
	failoverLease = 10 * time.Second
)

// TestFailover_OfTheOutboxLosesNothingWithASynchronousStandby kills the primary under load.
// Publisher and sender go on by themselves, at the promoted standby: every event arrives,
// in order, and none twice.
func TestFailover_OfTheOutboxLosesNothingWithASynchronousStandby(t *testing.T) {
	t.Parallel()
	f := newFailover(t, true)
	startAll(t, f.publisher, f.sender)
	load := f.load(t)
	f.arriveSince(t, time.Time{}, 50)
	linger(t.Context(), cmp.Or(*failoverFlag, failoverShort))

	killed, promoted := f.failOver(t)
	f.arriveSince(t, promoted, 50)
	linger(t.Context(), cmp.Or(*failoverFlag, failoverShort))
	load()
	report := f.judge(t)

	last, first := f.pause(promoted)
	pause := first.Sub(last)
	t.Logf("%d events, %d duplicates; no delivery for %s: the kill came %s after the last one, the promotion took %s, the next delivery came %s after it",
		report.Delivered, report.Duplicates, pause.Round(time.Millisecond), killed.Sub(last).Round(time.Millisecond),
		promoted.Sub(killed).Round(time.Millisecond), first.Sub(promoted).Round(time.Millisecond))
	if report.Duplicates > 0 && pause < failoverLease-2*time.Second {
		t.Errorf("%d events came twice, although the sender kept its lease", report.Duplicates)
	}
	conn := f.outbox.Connect(t)
	acknowledgedOnce(t, conn)
	for what, sql := range map[string]string{
		"gaps": "SELECT count(*) FROM walhook.gap", "dead letters": "SELECT count(*) FROM walhook.dead_letter", "standby": "SELECT count(*) FROM pg_stat_replication",
	} {
		var n int
		if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil || n > 0 {
			t.Errorf("%d %s, %v", n, what, err)
		}
	}
	f.publisher.stop(t)
	f.sender.stop(t)
}

// TestFailover_OfTheOutboxToAStandbyThatLacksTheNewestIsAGap lets the standby stop receiving
// before the primary is killed. What the source was told is stored is missing: the publisher
// records the gap and ends with status 3. After 'setup --accept-gap' all goes on, with the
// same sender.
func TestFailover_OfTheOutboxToAStandbyThatLacksTheNewestIsAGap(t *testing.T) {
	t.Parallel()
	f := newFailover(t, false)
	startAll(t, f.publisher, f.sender)
	load := f.load(t)
	f.arriveSince(t, time.Time{}, 50)
	f.leaveBehind(t)
	left := time.Now()
	f.arriveSince(t, left, 100)
	f.confirmed(t)

	f.publisher.ending.Store(true) // it ends by itself
	f.failOver(t)
	select {
	case <-f.publisher.ended:
	case <-time.After(patience):
		t.Fatal("the publisher does not end")
	}
	load()
	if status := exitCodeOf(f.publisher.err); status != exitGap {
		t.Errorf("the publisher ended with %v, want exit status %d", f.publisher.err, exitGap)
	}
	if f.publisher.said(t, "setup --accept-gap") == 0 {
		t.Error("the log does not say what to do")
	}
	conn := f.outbox.Connect(t)
	var open int
	const gaps = "SELECT count(*) FROM walhook.gap WHERE accepted_at IS NULL"
	if err := conn.QueryRow(t.Context(), gaps).Scan(&open); err != nil || open != 1 {
		t.Errorf("%d open gaps, want 1: %v", open, err)
	}
	var why string
	if err := conn.QueryRow(t.Context(), "SELECT reason FROM walhook.gap").Scan(&why); err != nil || !strings.HasPrefix(why, "the outbox lacks what was stored in it last") {
		t.Errorf("the gap is recorded as %q, %v", why, err)
	}
	if f.publisher.said(t, "the outbox lacks what was stored in it last") == 0 || f.publisher.said(t, "somebody else advanced") > 0 {
		t.Error("the publisher does not say what happened")
	}
	mustRun(t, "setup", "--accept-gap", "--source", f.db.URL, "--outbox", f.outbox.URL, "--slot", f.slot, "--catalog", f.catalog)
	startAll(t, f.publisher)
	f.insertAndReceive(t, 200)
	if err := conn.QueryRow(t.Context(), gaps).Scan(&open); err != nil || open != 0 {
		t.Errorf("%d open gaps after they were accepted: %v", open, err)
	}
	f.publisher.stop(t)
	f.sender.stop(t)
}

// TestFailover_OfTheOutboxNothingCountsThatIsLost has a sender learn of commits that the
// promoted standby lacks: an endpoint that was disabled, and a replay whose events took ids.
// The publisher ends with the primary, so another one knows of neither; the sender keeps its
// lease. The lost edit counts for nobody, and what gets ids again is sent.
func TestFailover_OfTheOutboxNothingCountsThatIsLost(t *testing.T) {
	t.Parallel()
	f := newFailover(t, false)
	to := mustParse(t, f.db.URL)
	source := newProxy(t, to.Host)
	to.Host = source.Addr()
	first := newActor(t, "publisher-first", "--role", "publisher", "--source", to.String(), "--outbox", f.outbox.URL, "--slot", f.slot, "--catalog", f.catalog)
	startAll(t, first, f.sender)
	load := f.load(t)
	f.arriveSince(t, time.Time{}, 100)
	load()
	f.confirmed(t)
	if err := source.Close(); err != nil { // no position is stored any more, so none is lost
		t.Fatal(err)
	}
	f.judge(t)
	f.leaveBehind(t)

	primary := f.primary.URL(f.outbox.Name)
	mustRun(t, "endpoints", "disable", "1", "--reason", "lost with the primary", "--outbox", primary)
	replayed := time.Now()
	mustRun(t, "replay", "--account", "2", "--since", "1h", "--detach", "--outbox", primary)
	f.arriveSince(t, replayed, 2)
	eventually(t, 30*time.Second, func() bool { return f.sender.said(t, `"endpoint state"`) > 0 })

	_ = first.end(syscall.SIGKILL)
	f.failOver(t)
	startAll(t, f.publisher)
	f.insertAndReceive(t, 200)
	conn := f.outbox.Connect(t)
	for what, sql := range map[string]string{
		"gaps": "SELECT count(*) FROM walhook.gap", "dead letters": "SELECT count(*) FROM walhook.dead_letter",
		"events below the first id of the timeline": "SELECT count(*) FROM walhook.event WHERE record ~ ':1000[0-9]{3}$' AND id < (SELECT max(first_event) FROM walhook.timeline)",
		"other timelines": "SELECT count(*) - 2 FROM walhook.timeline",
	} {
		var n int
		if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d %s, %v", n, what, err)
		}
	}
	if f.publisher.said(t, "the outbox failed over")+f.sender.said(t, "the outbox failed over") == 0 {
		t.Error("no process says that the outbox failed over")
	}
	status := mustRun(t, "status", "--outbox", f.outbox.URL)
	if !strings.Contains(status, "\nfailover ") && !strings.HasPrefix(status, "failover ") {
		t.Errorf("the status does not tell of the failover:\n%s", status)
	}
	f.publisher.stop(t)
	f.sender.stop(t)
}

func mustParse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// failover is a shop whose outbox has a standby.
type failover struct {
	*shop
	server            *receiver.Server
	primary, standby  *pgcluster.Cluster
	publisher, sender *actor
}

func newFailover(t *testing.T, synchronous bool) *failover {
	t.Helper()
	f := &failover{primary: pgtest.NewCluster(t, pgcluster.Options{NoSync: true})}
	var err error
	if f.standby, err = f.primary.Standby(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.standby.Stop() })
	if f.server, err = receiver.Start(receiver.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.server.Close() })
	outbox := pgtest.NewDatabase(t, f.primary)
	want := "async"
	if synchronous {
		outbox.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = second")
		outbox.Exec(t, "SELECT pg_reload_conf()")
		want = "sync"
	}
	eventually(t, 20*time.Second, func() bool { return f.standbyIs(t, want) })
	outbox.URL = twoHosts(t, outbox.URL, f.standby.URL(outbox.Name))
	f.shop = newShopIn(t, pgtest.Database(t), outbox, failoverAccounts, f.server.URL)
	f.publisher = f.shop.publisher(t)
	f.sender = f.shop.sender(t, "sender", "--outbox", outbox.URL)
	return f
}

// twoHosts is the first URL with the host of the second as another one, as
// docs/OPERATIONS.md writes it.
func twoHosts(t *testing.T, first, second string) string {
	t.Helper()
	a, b := mustParse(t, first), mustParse(t, second)
	return strings.Replace(first, a.Host, a.Host+","+b.Host, 1) + "&target_session_attrs=read-write"
}

// standbyIs says whether the primary has one standby, in a state: sync, async, or none for "".
func (f *failover) standbyIs(t *testing.T, state string) (is bool) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.primary.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	const sql = "SELECT coalesce(string_agg(sync_state, ','), '') = $1 FROM pg_stat_replication"
	if err := conn.QueryRow(t.Context(), sql, state).Scan(&is); err != nil {
		t.Fatal(err)
	}
	return is
}

// leaveBehind has the standby receive nothing more.
func (f *failover) leaveBehind(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.standby.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, sql := range []string{"ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, func() bool { return f.standbyIs(t, "") })
}

// failOver kills the primary and promotes the standby.
func (f *failover) failOver(t *testing.T) (killed, promoted time.Time) {
	t.Helper()
	killed = time.Now()
	if err := f.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := f.standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	return killed, time.Now()
}

// load makes the carrier busy until the returned function is called.
func (f *failover) load(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	busy := make(chan error, 1)
	go func() { busy <- f.counting(t, ctx, failoverRecords, failoverRate) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-busy; err != nil {
			t.Fatal(err)
		}
	}
}

// arriveSince waits for a number of deliveries after a moment.
func (f *failover) arriveSince(t *testing.T, since time.Time, deliveries int) {
	t.Helper()
	eventually(t, 60*time.Second, func() bool {
		n := 0
		for _, d := range f.server.Deliveries() {
			if d.OK() && d.Arrived.After(since) {
				n++
			}
		}
		return n >= deliveries
	})
}

// confirmed waits until the source was told that all is stored which it has committed so far.
func (f *failover) confirmed(t *testing.T) {
	t.Helper()
	conn := f.db.Connect(t)
	var end string
	if err := conn.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	const sql = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1"
	eventually(t, 30*time.Second, func() (is bool) {
		if err := conn.QueryRow(t.Context(), sql, f.slot, end).Scan(&is); err != nil {
			t.Fatal(err)
		}
		return is
	})
}

// judge waits until nothing is missing, and looks at the whole.
func (f *failover) judge(t *testing.T) (report receiver.Report) {
	t.Helper()
	eventually(t, 60*time.Second, func() bool {
		report = receiver.Verify(f.allExpected(), f.server.Deliveries(), receiver.Terms{})
		return report.Lost == 0
	})
	for _, fault := range report.Faults {
		t.Error(fault)
	}
	if !report.OK() {
		t.Errorf("the contract was not kept: %+v", report.Counts)
	}
	return report
}

// pause is the last delivery before a moment and the first one after it.
func (f *failover) pause(at time.Time) (last, first time.Time) {
	deliveries := f.server.Deliveries()
	slices.SortFunc(deliveries, func(a, b receiver.Delivery) int { return a.Arrived.Compare(b.Arrived) })
	i := slices.IndexFunc(deliveries, func(d receiver.Delivery) bool { return d.Arrived.After(at) })
	return deliveries[i-1].Arrived, deliveries[i].Arrived
}

// insertAndReceive inserts items that are new, and waits until each was delivered.
func (f *failover) insertAndReceive(t *testing.T, items int) {
	t.Helper()
	before := len(f.allExpected())
	conn := f.db.Connect(t)
	for i := range items {
		id, account := 1_000_000+int64(i), int64(i%failoverAccounts+1)
		if _, err := conn.Exec(t.Context(), "INSERT INTO item (id, account, n) VALUES ($1, $2, 1)", id, account); err != nil {
			t.Fatal(err)
		}
		f.expect("insert", id, account, 1)
	}
	want := f.allExpected()[before:]
	eventually(t, 60*time.Second, func() bool {
		var theirs []receiver.Delivery
		for _, d := range f.server.Deliveries() {
			if len(d.Record) == len("1000000") {
				theirs = append(theirs, d)
			}
		}
		report := receiver.Verify(want, theirs, receiver.Terms{})
		return report.Lost == 0 && report.OK()
	})
}
