package endtoend

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/loopback"
	"walhook/internal/receiver"
)

// rarely is how often a sender looks that is notified, in case one is lost.
const rarely = time.Second

// woken is the most that the median of one that is notified takes.
const woken = 40 * time.Millisecond

// separate is a publisher and two senders, each in a process of its own.
type separate struct {
	*shop
	server   *receiver.Server
	arrivals chan receiver.Delivery
	source   *pgx.Conn
	outbox   *pgx.Conn
	all      []*actor
	senders  []string // where they tell their metrics
	next     int64    // id of an item
}

func newSeparate(t *testing.T) *separate {
	t.Helper()
	a := &separate{arrivals: make(chan receiver.Delivery, 1000), next: 1}
	var err error
	a.server, err = receiver.Start(receiver.Options{OnDelivery: func(d receiver.Delivery) { a.arrivals <- d }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.server.Close() })
	a.shop = newShop(t, 8, a.server.URL)
	a.source, a.outbox = a.db.Connect(t), a.shop.outbox.Connect(t)
	a.all = []*actor{a.shop.publisher(t)}
	for _, name := range []string{"one", "two"} {
		address := loopback.Address(t)
		a.senders = append(a.senders, address)
		a.all = append(a.all, a.shop.sender(t, name, "--outbox", a.shop.outbox.URL, "--listen", address))
	}
	startAll(t, a.all...)
	eventually(t, 30*time.Second, func() bool { return a.count(t, `SELECT count(DISTINCT sender) FROM walhook.shard`) == 2 })
	return a
}

func (a *separate) count(t *testing.T, sql string) (n int64) {
	t.Helper()
	if err := a.outbox.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// latency is how long one insertion takes to arrive.
func (a *separate) latency(t *testing.T) time.Duration {
	t.Helper()
	id := a.next
	a.next++
	began := time.Now()
	if _, err := a.source.Exec(t.Context(), `INSERT INTO item (id, account) VALUES ($1, $2)`, id, id%8+1); err != nil {
		t.Fatal(err)
	}
	late := time.After(patience)
	for {
		select {
		case d := <-a.arrivals:
			if d.Record == strconv.FormatInt(id, 10) {
				return d.Arrived.Sub(began)
			}
		case <-late:
			t.Fatal("an event did not arrive")
		}
	}
}

// median is that of n insertions, at no fixed pace.
func (a *separate) median(t *testing.T, n int) time.Duration {
	t.Helper()
	var took []time.Duration
	for i := range n {
		took = append(took, a.latency(t))
		time.Sleep(time.Duration(20+i*7%30) * time.Millisecond)
	}
	slices.Sort(took)
	return took[n/2]
}

// notified says whether every sender relies on notifications, and so polls rarely.
func (a *separate) notified(t *testing.T) bool {
	t.Helper()
	for _, address := range a.senders {
		if scrape(t, address).sum("walhook_notified") != 1 {
			return false
		}
	}
	return true
}

// A sender elsewhere does not wait for its poll, which is rare once it is notified. A busy
// machine makes all take longer, so one series of several will do.
func TestNotify_ASenderElsewhereIsWoken(t *testing.T) {
	t.Parallel()
	a := newSeparate(t)
	for _, address := range a.senders {
		awaitReady(t, address)
	}
	least := time.Hour
	for tries := 0; tries < 5 && least > woken; tries++ {
		eventually(t, patience, func() bool { return a.notified(t) })
		if got := a.median(t, 30); a.notified(t) {
			least = min(least, got)
		}
	}
	if least > woken {
		t.Errorf("the median of 30 events is %s; one that waits for the poll takes %s and more", least, rarely/2)
	} else {
		t.Logf("median %s", least)
	}
	for _, one := range a.all {
		one.stop(t)
	}
}

// An idle fleet asks the outbox little: heartbeats, leases, and a look now and then.
func TestNotify_AnIdleFleetAsksLittle(t *testing.T) {
	t.Parallel()
	a := newSeparate(t)
	a.latency(t)
	const transactions = `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()`
	rate := func() float64 {
		a.outbox.Exec(t.Context(), `SELECT pg_stat_clear_snapshot()`)
		before, began := a.count(t, transactions), time.Now()
		time.Sleep(4 * time.Second)
		return float64(a.count(t, transactions)-before) / time.Since(began).Seconds()
	}
	least := rate()
	for tries := 0; tries < 12 && least >= idleRate; tries++ { // until all know of each other
		least = min(least, rate())
	}
	if least >= idleRate {
		t.Errorf("%.1f transactions a second, want less than %d", least, idleRate)
	} else {
		t.Logf("%.1f transactions a second", least)
	}
}

// idleRate bounds the transactions a second of a publisher and two senders in which
// nothing happens, those included in which listening sessions take notifications. It is
// 32 to 38 where the senders poll, and 20 to 24 where they are notified.
const idleRate = 28
