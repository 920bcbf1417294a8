package endtoend

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// crashKills is how often each of the two is killed. Every kill comes at a
// random moment under load.
const (
	crashKills = 6
	killsLeast = 1000 // events, for the run to prove something
)

// TestRun_LosesNothingToKills kills walhook and PostgreSQL with SIGKILL again
// and again while the carrier is busy. Afterwards every committed change must
// have been delivered at least once, repeats under the same webhook-id and
// with the same bytes, the events of each record in order.
func TestRun_LosesNothingToKills(t *testing.T) {
	t.Parallel()
	c := newCrashWorld(t)
	process := c.start(t)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	busy := make(chan error, 1)
	go func() {
		_, err := c.activity.Run(ctx, 60, time.Hour)
		busy <- err
	}()
	random := rand.New(rand.NewPCG(1, 2))
	walhookKills, serverKills := 0, 0
	for walhookKills < crashKills || serverKills < crashKills {
		<-time.After(time.Duration(300+random.IntN(1500)) * time.Millisecond) // a random moment
		if serverKills < crashKills && (walhookKills == crashKills || random.IntN(2) == 0) {
			serverKills++
			if err := c.db.Cluster.Kill(); err != nil {
				t.Fatal(err)
			}
			if random.IntN(2) == 0 { // sometimes both, at once
				process.kill(t)
				process = c.start(t)
			}
			if err := c.db.Cluster.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		walhookKills++
		release := func() {}
		if random.IntN(2) == 0 {
			release = c.stallOutbox(t)
			<-time.After(time.Duration(100+random.IntN(500)) * time.Millisecond) // changes pile up
		}
		process.kill(t)
		release()
		process = c.start(t)
	}
	conn := c.db.Connect(t)
	eventually(t, patience, func() bool { // a busy machine commits less between the kills
		n, err := carrier.Count(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		return n >= killsLeast
	})
	cancel()
	if err := <-busy; err != nil {
		t.Fatalf("activity: %v", err)
	}
	t.Logf("%d kills of walhook, %d of PostgreSQL, %+v", walhookKills, serverKills, c.activity.Stats())
	c.judge(t)
	process.stop(t)
}

// crashWorld is a carrier with an outbox and receivers, on a server of its own.
type crashWorld struct {
	db       *pgtest.DB
	outbox   string
	server   *receiver.Server
	secrets  *secretBook
	activity *carrier.Activity
}

func newCrashWorld(t *testing.T) *crashWorld {
	t.Helper()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	c := &crashWorld{db: pgtest.NewDatabase(t, cluster)}
	var err error
	if c.outbox, err = cluster.CreateDatabase(t.Context(), "outbox"); err != nil {
		t.Fatal(err)
	}
	c.secrets = &secretBook{url: c.outbox, known: map[string]string{}}
	c.server, err = receiver.Start(receiver.Options{
		Behave: func(account string) receiver.Behaviour { return receiver.Flaky(3, 5, receiver.Healthy()) },
		Secret: c.secrets.look,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.server.Close() })
	url := func(i int) string { return c.server.URL(accountName(i)) }
	conn := c.db.Connect(t)
	if err := carrier.Create(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := carrier.Seed(t.Context(), conn, worldAccounts, 5, url); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "setup", "--source", c.db.URL, "--outbox", c.outbox)
	c.activity, err = carrier.NewActivity(t.Context(), c.db.URL, carrier.Options{Accounts: worldAccounts, Seed: 6, URLFor: url, BulkRows: 2000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.activity.Close)
	return c
}

// stallOutbox holds up every append until it is released: what has been read
// by then is received and not stored. Whoever told the source otherwise loses
// it when the process is killed now.
func (c *crashWorld) stallOutbox(t *testing.T) (release func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.outbox)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "BEGIN; SELECT FROM walhook.epoch FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(t.Context()) } // which rolls back
}

// judge waits until nothing is missing and has the referee look at the whole.
func (c *crashWorld) judge(t *testing.T) {
	t.Helper()
	conn := c.db.Connect(t)
	var report receiver.Report
	for deadline := time.Now().Add(90 * time.Second); ; <-time.After(500 * time.Millisecond) {
		expected, err := carrier.Read(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		report = receiver.Verify(expected, c.server.Deliveries(), receiver.Terms{})
		if report.Lost == 0 || time.Now().After(deadline) || t.Failed() {
			break
		}
	}
	t.Logf("%+v", report.Counts)
	for _, fault := range report.Faults {
		t.Error(fault)
	}
	if !report.OK() || report.Delivered < killsLeast {
		t.Errorf("the contract was not kept, or hardly anything was delivered: %+v", report.Counts)
	}
}

func (c *crashWorld) start(t *testing.T) *childProcess {
	t.Helper()
	return startChild(t, "run", "--source", c.db.URL, "--outbox", c.outbox, "--listen", "off",
		"--allow-cidr", "127.0.0.0/8", "--retry-schedule", "200ms,500ms,1s,2s,5s,5s,5s,5s")
}

// secretBook knows the accounts' secrets, also while the outbox is down.
type secretBook struct {
	url string

	mu    sync.Mutex
	known map[string]string // guarded by mu
}

func (b *secretBook) look(account string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for deadline := time.Now().Add(patience); b.known[account] == "" && time.Now().Before(deadline); {
		b.read()
	}
	return b.known[account]
}

func (b *secretBook) read() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		<-ctx.Done() // the server is being restarted
		return
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT account, secret FROM walhook.endpoint")
	if err != nil {
		return
	}
	var account, secret string
	_, _ = pgx.ForEachRow(rows, []any{&account, &secret}, func() error { // what is missing is asked for again
		b.known[account] = secret
		return nil
	})
}
