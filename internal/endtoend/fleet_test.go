package endtoend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/chaos"
	"walhook/internal/receiver"
)

const (
	fleetAccounts = 64
	fleetRecords  = 2
	fleetLease    = 10 * time.Second
	// fleetTakeover is the promise. Beyond the lease the others look every two
	// seconds, and then have to read where the lanes stand.
	fleetTakeover = 15 * time.Second
)

// TestFleet_OthersTakeOver has one sender killed, one frozen beyond its lease
// and one cut off from PostgreSQL, all at once, while events keep coming. The
// fourth takes over from all three; what the frozen and the cut off one still
// want to write when they are back is refused.
func TestFleet_OthersTakeOver(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	busy := make(chan error, 1)
	go func() { busy <- f.counting(t, ctx, fleetRecords, 300) }()
	f.dealtAmong(t, 4)
	eventually(t, 20*time.Second, func() bool { return f.server.Count() > 500 })

	// Now so slow that most records have something in flight.
	f.mood.Set(receiver.Slow(3*time.Second, receiver.Healthy()))
	committed := len(f.allExpected())
	eventually(t, patience, func() bool { return len(f.allExpected()) >= committed+2*fleetAccounts })
	accounts, shards := f.holders(t), f.shards(t)
	settled := f.settledEvents(t)
	broken := time.Now()
	f.killed.end(syscall.SIGKILL)
	if err := f.frozen.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.link.Set(chaos.Weather{Silent: true})
	stopped := time.Now()
	f.mood.Set(receiver.Slow(20*time.Millisecond, receiver.Healthy()))
	victims := []*actor{f.killed, f.frozen, f.cut}
	replaced := map[*actor]time.Duration{}
	eventually(t, patience, func() bool {
		now := f.shards(t)
		for _, victim := range victims {
			theirs := func(shard int) bool { return now[shard] == nil || now[shard] == victim }
			if replaced[victim] == 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(shards)), func(shard int) bool { return shards[shard] == victim && theirs(shard) }) {
				replaced[victim] = time.Since(broken)
			}
		}
		return len(replaced) == len(victims)
	})
	eventually(t, patience, func() bool { return f.takenOver(victims, accounts, broken) })
	for _, victim := range victims {
		took := f.tookOver(victim, accounts[victim], broken)
		t.Logf("%s: replaced after %s, its %d accounts get events after %s to %s", victim.name, replaced[victim].Round(10*time.Millisecond), len(accounts[victim]),
			took[0].Round(10*time.Millisecond), took[len(took)-1].Round(10*time.Millisecond))
		if replaced[victim] > fleetTakeover {
			t.Errorf("%s was replaced after %s", victim.name, replaced[victim])
		}
		if last := took[len(took)-1]; last > fleetTakeover {
			t.Errorf("%s: the last account was taken over after %s", victim.name, last)
		}
	}

	back := time.Now()
	if err := f.frozen.signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f.link.Set(chaos.Weather{})
	f.dealtAmong(t, 3)
	for _, victim := range []*actor{f.frozen, f.cut} {
		if victim.said(t, `"session ended, joining again"`) == 0 {
			t.Errorf("%s did not notice that it lost its lease", victim.name)
		}
		f.nothingSentStale(t, victim, stopped, back)
	}
	cancel()
	if err := <-busy; err != nil {
		t.Fatal(err)
	}
	f.judge(t, victims, broken, settled)
	for _, a := range []*actor{f.publisher, f.frozen, f.cut, f.spare} {
		a.stop(t)
	}
}

// fleet is one publisher and four senders. A receiver knows a sender by its
// address.
type fleet struct {
	*shop
	server                                *receiver.Server
	mood                                  *receiver.Switch
	publisher, killed, frozen, cut, spare *actor
	link                                  *chaos.Proxy // of the one to be cut off
	addresses                             map[*actor]string
	conn                                  *pgx.Conn // to the outbox
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{addresses: map[*actor]string{}, mood: receiver.NewSwitch(receiver.Slow(20*time.Millisecond, receiver.Healthy()))}
	var err error
	f.server, err = receiver.Start(receiver.Options{Behave: func(string) receiver.Behaviour { return f.mood.Behave }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.server.Close() })
	f.shop = newShop(t, fleetAccounts, f.server.URL)
	f.conn = f.outbox.Connect(t)
	f.publisher = f.shop.publisher(t)
	sender := func(name string, number int) *actor {
		a := f.shop.sender(t, name)
		outbox := f.outbox.URL
		if name == "cut" {
			outbox = a.link(t, f.outbox.URL)
			f.link = a.links[0]
		}
		f.addresses[a] = fmt.Sprintf("127.0.0.%d", 10+number)
		a.args = append(a.args, "--outbox", outbox, "--egress-address", f.addresses[a])
		return a
	}
	f.killed, f.frozen, f.cut, f.spare = sender("killed", 1), sender("frozen", 2), sender("cut", 3), sender("spare", 4)
	startAll(t, f.publisher, f.killed, f.frozen, f.cut, f.spare)
	return f
}

// dealtAmong waits until all shards are held, in fair parts, by so many.
func (f *fleet) dealtAmong(t *testing.T, senders int) {
	t.Helper()
	const sql = `
		SELECT count(*), coalesce(sum(n), 0), coalesce(max(n), 0)
		FROM (SELECT count(*) AS n FROM walhook.shard WHERE sender IS NOT NULL GROUP BY sender) held`
	eventually(t, 30*time.Second, func() bool {
		var holders, held, most int
		if err := f.conn.QueryRow(t.Context(), sql).Scan(&holders, &held, &most); err != nil {
			t.Fatal(err)
		}
		return holders == senders && held == 32 && most <= (32+senders-1)/senders
	})
}

// holders says whose accounts are whose.
func (f *fleet) holders(t *testing.T) map[*actor][]string {
	t.Helper()
	rows, err := f.conn.Query(t.Context(), `
		SELECT s.name, p.account FROM walhook.sender s JOIN walhook.shard h ON h.sender = s.id
		JOIN walhook.endpoint p ON p.id % 32 = h.id`)
	if err != nil {
		t.Fatal(err)
	}
	held := map[*actor][]string{}
	var name, account string
	_, err = pgx.ForEachRow(rows, []any{&name, &account}, func() error {
		for a := range f.addresses {
			if strings.HasSuffix(name, "/"+strconv.Itoa(a.cmd.Process.Pid)) {
				held[a] = append(held[a], account)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// shards says which sender holds a shard; nil for one that is not of these, or none.
func (f *fleet) shards(t *testing.T) map[int]*actor {
	t.Helper()
	rows, err := f.conn.Query(t.Context(), `SELECT h.id, coalesce(s.name, '') FROM walhook.shard h LEFT JOIN walhook.sender s ON s.id = h.sender`)
	if err != nil {
		t.Fatal(err)
	}
	held := map[int]*actor{}
	var id int
	var name string
	_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error {
		held[id] = nil
		for a := range f.addresses {
			if strings.HasSuffix(name, "/"+strconv.Itoa(a.cmd.Process.Pid)) {
				held[id] = a
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// settledEvents are the events whose delivery is stored.
func (f *fleet) settledEvents(t *testing.T) map[string]bool {
	t.Helper()
	rows, err := f.conn.Query(t.Context(), `SELECT e.webhook_id FROM walhook.attempt a JOIN walhook.event e ON e.endpoint = a.endpoint AND e.id = a.event_id WHERE a.outcome = 'delivered'`)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { stored[id] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	return stored
}

func (f *fleet) takenOver(victims []*actor, accounts map[*actor][]string, since time.Time) bool {
	for _, victim := range victims {
		if len(f.tookOver(victim, accounts[victim], since)) < len(accounts[victim]) {
			return false
		}
	}
	return true
}

// tookOver is how long it took, account by account, until another sender
// delivered to a victim's accounts: in rising order.
func (f *fleet) tookOver(victim *actor, accounts []string, since time.Time) []time.Duration {
	waiting := map[string]bool{}
	for _, account := range accounts {
		waiting[account] = true
	}
	var took []time.Duration
	for _, d := range f.server.Deliveries() {
		if waiting[d.Account] && d.From != f.addresses[victim] && d.Arrived.After(since) {
			waiting[d.Account] = false
			took = append(took, d.Arrived.Sub(since))
		}
	}
	return took
}

// nothingSentStale checks that a sender that was away started no attempt after
// its lease had ended and before it had joined anew.
func (f *fleet) nothingSentStale(t *testing.T, victim *actor, away, back time.Time) {
	t.Helper()
	from := away // what is frozen starts nothing
	if victim == f.cut {
		from = away.Add(fleetLease)
	}
	for _, d := range f.server.Deliveries() {
		if d.From == f.addresses[victim] && d.SentAt.After(from) && d.SentAt.Before(back.Truncate(time.Second)) {
			t.Errorf("%s sent %s at %s, after its lease", victim.name, d.ID, d.SentAt)
		}
	}
}

// judge has the referee look at the whole, and compares what came twice with
// what was in flight.
func (f *fleet) judge(t *testing.T, victims []*actor, broken time.Time, settled map[string]bool) {
	t.Helper()
	var report receiver.Report
	eventually(t, 60*time.Second, func() bool {
		report = receiver.Verify(f.allExpected(), f.server.Deliveries(), receiver.Terms{})
		return report.Lost == 0
	})
	// A few more may be on their way.
	eventually(t, 10*time.Second, func() bool { return f.settled(t) })
	t.Logf("%+v", report.Counts)
	for _, fault := range report.Faults {
		t.Error(fault)
	}
	f.judgeDoubles(t, victims, broken, settled)
	acknowledgedOnce(t, f.conn)
}

// settleLag is more than it takes to settle what was answered.
const settleLag = time.Second

// judgeDoubles checks that what came twice came from a victim first, whose attempt was in
// flight or not settled yet when it broke.
func (f *fleet) judgeDoubles(t *testing.T, victims []*actor, broken time.Time, settled map[string]bool) {
	t.Helper()
	owner := map[string]*actor{}
	for _, victim := range victims {
		owner[f.addresses[victim]] = victim
	}
	first, doubles := map[string]receiver.Delivery{}, map[*actor]int{}
	for _, d := range f.server.Deliveries() {
		one, again := first[d.ID]
		if !again {
			first[d.ID] = d
			continue
		}
		victim := owner[one.From]
		if victim == nil {
			t.Errorf("%s came again, and first from %s, which was well", d.ID, one.From)
			continue
		}
		doubles[victim]++
		if settled[d.ID] {
			t.Errorf("%s came again: its delivery by %s was stored before that broke", d.ID, victim.name)
		}
		if !one.Answered.IsZero() && one.Answered.Before(broken.Add(-settleLag)) {
			t.Errorf("%s came again: %s had its answer %s before it broke", d.ID, victim.name, broken.Sub(one.Answered))
		}
	}
	for _, victim := range victims {
		t.Logf("%s: %d of its events came twice", victim.name, doubles[victim])
		if doubles[victim] == 0 {
			t.Errorf("%s had nothing in flight: the test proves nothing", victim.name)
		}
		if limit := 2 * fleetAccounts * fleetRecords / 4; victim != f.cut && doubles[victim] > limit {
			t.Errorf("%s: %d events came twice, and at most %d were in flight", victim.name, doubles[victim], limit)
		}
	}
}

// settled says whether every event has been acknowledged.
func (f *fleet) settled(t *testing.T) bool {
	t.Helper()
	var left int
	const sql = `
		SELECT count(*) FROM walhook.event e WHERE NOT EXISTS (
			SELECT FROM walhook.attempt a WHERE a.endpoint = e.endpoint AND a.event_id = e.id AND a.outcome = 'delivered')`
	if err := f.conn.QueryRow(t.Context(), sql).Scan(&left); err != nil {
		t.Fatal(err)
	}
	return left == 0
}

// acknowledgedOnce checks that no event was settled as delivered by two. An
// event is sent again only when nobody has acknowledged it, so the second
// acknowledgement is that of an owner that was one no longer.
func acknowledgedOnce(t *testing.T, outbox *pgx.Conn) {
	t.Helper()
	var twice int
	var which string
	const sql = `
		SELECT count(*), coalesce(string_agg(line, E'\n'), '') FROM (
			SELECT format('endpoint %s event %s: %s', endpoint, event_id,
				string_agg(format('attempt %s at %s for %s, revision %s', number, at, duration, revision), '; ' ORDER BY at)) AS line
			FROM walhook.attempt WHERE outcome = 'delivered' GROUP BY endpoint, event_id HAVING count(*) > 1) twice`
	if err := outbox.QueryRow(t.Context(), sql).Scan(&twice, &which); err != nil {
		t.Fatal(err)
	}
	if twice > 0 {
		t.Errorf("%d events were acknowledged twice: a stale owner could write\n%s", twice, which)
	}
}
