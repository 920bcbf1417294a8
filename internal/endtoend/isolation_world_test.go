package endtoend

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// mall is a shop under load, with one walhook that publishes and sends, and
// receivers of which three in ten have a mood.
type mall struct {
	*shop
	server  *receiver.Server
	mood    *receiver.Switch
	walhook *actor

	mu       sync.Mutex
	answered map[string]time.Time // of item, by id; guarded by mu
	counts   map[string]int       // by account; guarded by mu
}

func newMall(t *testing.T, accounts int) *mall {
	t.Helper()
	return newMallIn(t, pgtest.Database(t), pgtest.Database(t), accounts)
}

func newMallIn(t *testing.T, db, outbox *pgtest.DB, accounts int) *mall {
	t.Helper()
	m := &mall{mood: receiver.NewSwitch(receiver.Healthy()), answered: map[string]time.Time{}, counts: map[string]int{}}
	var err error
	m.server, err = receiver.Start(receiver.Options{
		Behave: func(account string) receiver.Behaviour {
			switch id, _ := strconv.Atoi(account); {
			case id%10 <= 2:
				return m.mood.Behave
			case id == burster: // who could not keep up with what it causes
				return receiver.Slow(100*time.Millisecond, receiver.Healthy())
			}
			return receiver.Healthy()
		},
		OnDelivery: m.heard,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.shop = newShopIn(t, db, outbox, accounts, m.server.URL)
	m.walhook = newActor(t, "walhook", "--source", m.db.URL, "--outbox", m.outbox.URL, "--slot", m.slot, "--catalog", m.catalog, "--allow-cidr", "127.0.0.1/32")
	startAll(t, m.walhook)
	return m
}

// close ends a mall whose test goes on. What hangs is dropped first, so that
// nobody waits for it.
func (m *mall) close(t *testing.T) {
	t.Helper()
	_ = m.server.Close()
	m.walhook.stop(t)
}

func (m *mall) heard(d receiver.Delivery) {
	if !d.OK() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[d.Account]++
	if _, again := m.answered[d.Record]; !again {
		m.answered[d.Record] = d.Answered
	}
}

func (m *mall) delivered(account int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[strconv.Itoa(account)]
}

func (m *mall) memory(t *testing.T) int64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ps", "-o", "rss=", "-p", strconv.Itoa(m.walhook.cmd.Process.Pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	kilobytes, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// written describes every row that a sender may write, with its version; what
// only grows by its number.
func (m *mall) written(t *testing.T, outbox *pgx.Conn) (all string) {
	t.Helper()
	const sql = `
		SELECT string_agg(line, ' ' ORDER BY line) FROM (
			SELECT 'attempts:' || count(*) FROM walhook.attempt
			UNION ALL SELECT 'dead_letters:' || count(*) FROM walhook.dead_letter
			UNION ALL SELECT 'endpoint' || ctid || xmin FROM walhook.endpoint
			UNION ALL SELECT 'lane' || ctid || xmin FROM walhook.lane
			UNION ALL SELECT 'shard' || ctid || xmin FROM walhook.shard
			UNION ALL SELECT 'retry' || ctid || xmin FROM walhook.retry) rows (line)`
	if err := outbox.QueryRow(t.Context(), sql).Scan(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// sale is one committed item.
type sale struct {
	id      int64
	account int
}

// trade inserts items for all accounts in turn, each in a transaction of its
// own, for a while.
func (m *mall) trade(t *testing.T, length time.Duration, rate float64) []sale {
	t.Helper()
	const workers = 4
	var mu sync.Mutex
	var all []sale
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var group errgroup.Group
	for worker := range workers {
		group.Go(func() error {
			conn, err := pgx.Connect(t.Context(), m.db.URL)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			tick := time.NewTicker(time.Duration(workers / rate * float64(time.Second)))
			defer tick.Stop()
			for turn := worker; ; turn += workers {
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
				one := sale{account: turn%m.accounts + 1}
				if err := conn.QueryRow(t.Context(), "INSERT INTO item (account) VALUES ($1) RETURNING id", one.account).Scan(&one.id); err != nil {
					return err
				}
				mu.Lock()
				all = append(all, one)
				mu.Unlock()
			}
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

// p99 is the time from commit to 2xx that one in a hundred events of some
// accounts exceeds, after a moment to settle in.
func (m *mall) p99(t *testing.T, size isolationSize, of func(account int) bool) time.Duration {
	t.Helper()
	m.trade(t, size.phase/2, size.rate)
	var sets [][]sale
	for m.few(sets, of) { // once, but for a busy machine
		sets = append(sets, m.trade(t, size.phase, size.rate))
	}
	return m.quantile(t, slices.Concat(sets...), of)
}

// leastSales is how many a p99 is made of at least.
const leastSales = 100

// few says whether there are too few sales of some accounts for a p99.
func (m *mall) few(sets [][]sale, of func(account int) bool) bool {
	n := 0
	for _, s := range slices.Concat(sets...) {
		if of(s.account) {
			n++
		}
	}
	return n < leastSales
}

// quantile waits until the sales of some accounts are delivered and answers
// their p99.
func (m *mall) quantile(t *testing.T, sales []sale, of func(account int) bool) time.Duration {
	t.Helper()
	sales = slices.DeleteFunc(sales, func(s sale) bool { return !of(s.account) })
	eventually(t, time.Minute, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return !slices.ContainsFunc(sales, func(s sale) bool { return m.answered[strconv.FormatInt(s.id, 10)].IsZero() })
	})
	ids := make([]int64, len(sales))
	for i, s := range sales {
		ids[i] = s.id
	}
	rows, err := m.db.Connect(t).Query(t.Context(), `SELECT id, pg_xact_commit_timestamp(xmin) FROM item WHERE id = ANY ($1)`, ids)
	if err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	var id int64
	var committed time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &committed}, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		took = append(took, m.answered[strconv.FormatInt(id, 10)].Sub(committed))
		return nil
	})
	if err != nil || len(took) != len(sales) || len(took) < leastSales {
		t.Fatalf("%d times of %d sales: %v", len(took), len(sales), err)
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// burst has one account change many items at a pace, ten to a transaction.
func (m *mall) burst(t *testing.T, changes int, pace float64) error {
	conn, err := pgx.Connect(t.Context(), m.db.URL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	tick := time.NewTicker(time.Duration(10 / pace * float64(time.Second)))
	defer tick.Stop()
	for range changes / 10 {
		<-tick.C
		if _, err := conn.Exec(t.Context(), "INSERT INTO item (account) SELECT $1 FROM generate_series(1, 10)", burster); err != nil {
			return err
		}
	}
	return nil
}

// drain commits events of all accounts and answers how long it takes until all
// are delivered.
func (m *mall) drain(t *testing.T, events int) time.Duration {
	t.Helper()
	before := m.server.Count()
	began := time.Now()
	m.db.Exec(t, fmt.Sprintf("INSERT INTO item (account) SELECT 1 + n %% %d FROM generate_series(1, %d) n", m.accounts, events))
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Minute); m.server.Count() < before+events; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d events delivered", m.server.Count()-before, events)
		}
	}
	return time.Since(began)
}
