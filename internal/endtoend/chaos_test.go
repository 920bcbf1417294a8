package endtoend

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/internal/carrier"
	"walhook/internal/chaos"
	"walhook/internal/loopback"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

const (
	chaosShort    = 22 * time.Second
	chaosSeed     = 11 // of the short run
	chaosAccounts = 14
	chaosServers  = 3 // of receivers
)

// TestChaos_NothingIsLostOrOutOfOrder breaks everything that can break while
// the carrier is busy: processes are killed, frozen and restarted, servers
// crash, networks slow down, fall silent and reset, receivers fail, the outbox
// stalls, transactions stay open, URLs change and go. When it is over, all that
// was committed must have been delivered, in order and with the same bytes each
// time, and nothing may have gone where it must not.
//
// The plan of faults follows from the seed; what they meet does not.
func TestChaos_NothingIsLostOrOutOfOrder(t *testing.T) {
	t.Parallel()
	seed := cmp.Or(*seedFlag, chaosSeed)
	for i, layout := range []struct {
		name    string
		servers int
	}{{"one server", 1}, {"two servers", 2}} {
		t.Run(layout.name, func(t *testing.T) {
			if *chaosFlag == 0 {
				t.Parallel()
			}
			c := newChaosWorld(t, seed+uint64(i), layout.servers)
			c.run(t)
		})
	}
}

// chaosWorld is a carrier, an outbox, a fleet of walhook and receivers, with a
// breakable link wherever two of them talk.
type chaosWorld struct {
	seed     uint64
	duration time.Duration // of the faults

	source   *pgtest.DB
	outbox   string
	clusters []*pgcluster.Cluster // of source and outbox; one or two
	activity *carrier.Activity
	fleet    []*actor

	receivers []*receiver.Server
	roads     []*chaos.Proxy // to the receivers
	moods     []*receiver.Switch
	canary    *canary
	secrets   *chaosSecrets
	attacker  *attacker
	poisoned  string // the poisoned account's receiver

	counts sync.Map // kind of fault → *atomic.Int64
}

func newChaosWorld(t *testing.T, seed uint64, servers int) *chaosWorld {
	t.Helper()
	c := &chaosWorld{seed: seed, duration: *chaosFlag}
	if c.duration == 0 {
		c.duration = chaosShort
	}
	// A frozen publisher's slot is free after this long.
	options := pgcluster.Options{NoSync: true, Settings: map[string]string{"wal_sender_timeout": "5s"}}
	for range servers {
		c.clusters = append(c.clusters, pgtest.NewCluster(t, options))
	}
	c.source = pgtest.NewDatabase(t, c.clusters[0])
	var err error
	if c.outbox, err = c.clusters[servers-1].CreateDatabase(t.Context(), "outbox"); err != nil {
		t.Fatal(err)
	}
	c.secrets = newChaosSecrets(t, c.outbox)
	c.canary = newCanary(t)
	c.startReceivers(t)
	c.seedCarrier(t)
	mustRun(t, "setup", "--source", c.source.URL, "--outbox", c.outbox)
	c.secrets.read(t.Context())
	api := newActor(t, "api")
	c.attacker = newAttacker(loopback.Address(t))
	api.args = append(api.args, "--role", "api", "--listen", c.attacker.address, "--outbox", api.link(t, c.outbox), "--admin-token", chaosOperator,
		"--allow-cidr", "127.0.0.1/32")
	c.fleet = append(c.fleet, api)
	for _, name := range []string{"publisher1", "publisher2"} {
		a := newActor(t, name)
		a.args = append(a.args, "--role", "publisher", "--source", a.link(t, c.source.URL), "--outbox", a.link(t, c.outbox))
		c.fleet = append(c.fleet, a)
	}
	for _, name := range []string{"sender1", "sender2"} {
		a := newActor(t, name)
		a.args = append(a.args, "--role", "sender", "--outbox", a.link(t, c.outbox), "--attempt-timeout", "3s",
			"--allow-cidr", "127.0.0.1/32", "--retry-schedule", "200ms,500ms,1s"+strings.Repeat(",2s", 1000))
		c.fleet = append(c.fleet, a)
	}
	return c
}

func (c *chaosWorld) startReceivers(t *testing.T) {
	t.Helper()
	for i := range chaosServers {
		mood := receiver.NewSwitch(c.usual(i))
		server, err := receiver.Start(receiver.Options{
			Behave: func(string) receiver.Behaviour { return mood.Behave },
			Secret: c.secrets.look,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
		address := strings.TrimPrefix(server.URL(""), "http://")
		c.receivers = append(c.receivers, server)
		c.moods = append(c.moods, mood)
		c.roads = append(c.roads, newProxy(t, address[:strings.Index(address, "/")]))
	}
}

// usual is how a receiver behaves when nothing is wrong: it takes its time, so
// that something is always in flight, and now and then it fails.
func (c *chaosWorld) usual(i int) receiver.Behaviour {
	return receiver.Slow(30*time.Millisecond, receiver.Flaky(c.seed+uint64(i), 4, receiver.Healthy()))
}

// urlFor is an account's URL: at one of the receivers, through its road; of the
// last two seeded ones where nothing may ever be sent.
func (c *chaosWorld) urlFor(i int) string {
	if isCanary(accountName(i)) {
		return c.canary.url(i)
	}
	return "http://" + c.roads[i%chaosServers].Addr() + "/hooks/" + accountName(i)
}

func (c *chaosWorld) seedCarrier(t *testing.T) {
	t.Helper()
	conn := c.source.Connect(t)
	if err := carrier.Create(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := carrier.Seed(t.Context(), conn, chaosAccounts, c.seed, c.urlFor); err != nil {
		t.Fatal(err)
	}
	var err error
	c.activity, err = carrier.NewActivity(t.Context(), c.source.URL, carrier.Options{
		Accounts: chaosAccounts, Seed: c.seed, URLFor: c.urlFor, BulkRows: 400,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.activity.Close)
}

// run is the whole test.
func (c *chaosWorld) run(t *testing.T) {
	repeat := fmt.Sprintf("go test ./internal/endtoend -run '%s' -chaos %s -seed %d", "TestChaos_NothingIsLostOrOutOfOrder", c.duration, cmp.Or(*seedFlag, chaosSeed))
	t.Logf("seed %d, %s; to repeat: %s", c.seed, c.duration, repeat)
	c.preparePoison(t)
	for _, a := range c.fleet {
		if err := a.start(t); err != nil {
			t.Fatal(err)
		}
	}
	c.attacker.prepare(t, c.poisoned)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	busy := make(chan error, 1)
	go func() {
		_, err := c.activity.Run(ctx, 60, 24*time.Hour)
		busy <- err
	}()
	go func() { // a busy machine takes longer for what is worth breaking
		for began := time.Now(); time.Since(began) < c.duration || c.activity.Stats().Committed < c.least(); {
			if !linger(ctx, 100*time.Millisecond) {
				return
			}
		}
		cancel()
	}()
	var hostile sync.WaitGroup
	hostile.Go(func() { c.poison(ctx) })
	hostile.Go(func() { c.attacker.run(ctx) })
	c.breakThings(t, ctx)
	hostile.Wait()
	c.attacker.calm(t)
	c.endPoison(t)
	if err := <-busy; err != nil {
		t.Errorf("activity: %v", err)
	}
	c.judge(t)
	for _, a := range c.fleet {
		a.stop(t)
	}
	c.attacker.judge(t, c.fleet[0])
	c.canary.judge(t)
}

// least is how many events have to be delivered for the run to prove something.
func (c *chaosWorld) least() int { return int(c.duration/time.Second) * 20 }

// drainFor is how long it may take until all is delivered: breakers that
// opened several times in a row wait longest.
func (c *chaosWorld) drainFor() time.Duration {
	return min(max(30*time.Second+c.duration, patience), 12*time.Minute)
}

// judge waits until nothing is missing and looks at the whole.
func (c *chaosWorld) judge(t *testing.T) {
	t.Helper()
	conn := c.source.Connect(t)
	if *chaosFlag == 0 {
		// Nobody has time to wait for breakers: a new URL starts afresh.
		if _, err := conn.Exec(t.Context(), `UPDATE users SET web_hook_url = web_hook_url || '/after' WHERE web_hook_url <> '' AND id <> $1`, poisonAccount); err != nil {
			t.Fatal(err)
		}
	}
	expected, err := carrier.Read(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	outbox := c.connectOutbox(t)
	began := time.Now()
	var report receiver.Report
	missing := ""
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(c.drainFor()); ; <-tick.C {
		var deliveries []receiver.Delivery
		for _, server := range c.receivers {
			deliveries = append(deliveries, server.Deliveries()...)
		}
		report = receiver.Verify(expected, deliveries, receiver.Terms{MayWait: isCanary})
		missing = c.notKept(t, outbox, report.Absent)
		if report.Lost == 0 && missing == "" || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("seed %d, %s, drained in %s: %d events, %d duplicates, %d lost, faults: %s\n%+v", c.seed, c.duration,
		time.Since(began).Round(time.Millisecond), report.Delivered, report.Duplicates, report.Lost, c.tally(), report.Counts)
	for _, fault := range report.Faults {
		t.Error(fault)
	}
	if missing != "" {
		t.Error(missing)
	}
	if !report.OK() || report.Delivered < c.least() {
		t.Errorf("the contract was not kept, or hardly anything was delivered: %+v", report.Counts)
	}
	c.judgeOutbox(t, outbox)
}

const deadLettersSQL = `
	SELECT p.account, d.reason, sha256(d.body) FROM walhook.dead_letter d JOIN walhook.endpoint p ON p.id = d.endpoint`

// notKept says which of the events that may have expired are neither delivered
// nor dead letters; "" for none.
func (c *chaosWorld) notKept(t *testing.T, outbox *pgx.Conn, absent []carrier.Expected) string {
	t.Helper()
	type letter struct {
		account string
		body    [sha256.Size]byte
	}
	kept := map[letter]int{}
	rows, err := outbox.Query(t.Context(), deadLettersSQL)
	if err != nil {
		t.Fatal(err)
	}
	var one letter
	var reason string
	var sum []byte
	_, err = pgx.ForEachRow(rows, []any{&one.account, &reason, &sum}, func() error {
		if reason != "expired" && one.account != strconv.Itoa(poisonAccount) {
			t.Errorf("a dead letter of account %s: %s", one.account, reason)
		}
		copy(one.body[:], sum)
		kept[one]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	missing, example := 0, ""
	for _, e := range absent {
		l := letter{e.Account, e.Body}
		if kept[l]--; kept[l] < 0 && !isCanary(e.Account) {
			missing++
			example = fmt.Sprintf("%s of %s %s of account %s (ledger %d)", e.Type, e.Schema, e.Record, e.Account, e.Seq)
		}
	}
	if missing == 0 {
		return ""
	}
	return fmt.Sprintf("%d events are neither delivered nor kept as expired, such as %s", missing, example)
}

func (c *chaosWorld) connectOutbox(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.outbox)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// judgeOutbox looks for what a drained outbox must not hold.
func (c *chaosWorld) judgeOutbox(t *testing.T, outbox *pgx.Conn) {
	t.Helper()
	const sql = `
		SELECT (SELECT count(*) FROM walhook.gap),
		       (SELECT count(*) FROM walhook.retry r JOIN walhook.endpoint p ON p.id = r.endpoint
		        WHERE p.state = 'active' AND p.url NOT LIKE '%' || $1 || '%'),
		       (SELECT count(*) FROM walhook.endpoint WHERE state = 'disabled' AND account <> $2)`
	acknowledgedOnce(t, outbox)
	var gaps, retries, disabled int
	eventually(t, 20*time.Second, func() bool {
		if err := outbox.QueryRow(t.Context(), sql, c.canary.port(), strconv.Itoa(poisonAccount)).Scan(&gaps, &retries, &disabled); err != nil {
			t.Fatal(err)
		}
		return retries == 0 || t.Failed()
	})
	if gaps+disabled > 0 {
		t.Errorf("%d gaps, %d disabled endpoints", gaps, disabled)
	}
}

func (c *chaosWorld) count(kind string) { c.counter(kind).Add(1) }

func (c *chaosWorld) counted(kind string) int { return int(c.counter(kind).Load()) }

func (c *chaosWorld) counter(kind string) *atomic.Int64 {
	n, _ := c.counts.LoadOrStore(kind, &atomic.Int64{})
	return n.(*atomic.Int64)
}

// canary is a listener on an address that senders are not allowed to reach,
// and that accounts point to nonetheless.
type canary struct {
	listener net.Listener
	visits   atomic.Int64
}

func newCanary(t *testing.T) *canary {
	t.Helper()
	listener, err := net.Listen("tcp", ":0") // 127.0.0.2 and ::1 are ours
	if err != nil {
		t.Fatal(err)
	}
	k := &canary{listener: listener}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			k.visits.Add(1)
			_ = conn.Close()
		}
	}()
	return k
}

func (k *canary) port() string {
	return ":" + strconv.Itoa(k.listener.Addr().(*net.TCPAddr).Port)
}

// url names an address outside of what is allowed, in two ways.
func (k *canary) url(i int) string {
	host := "127.0.0.2"
	if i%2 == 0 {
		host = "[::ffff:127.0.0.2]"
	}
	return "http://" + host + k.port() + "/hooks/" + accountName(i)
}

func isCanary(account string) bool {
	return account == accountName(chaosAccounts-1) || account == accountName(chaosAccounts-2)
}

// judge checks that nobody came, and that somebody could have.
func (k *canary) judge(t *testing.T) {
	t.Helper()
	if n := k.visits.Load(); n > 0 {
		t.Errorf("%d connections to an address that is not allowed", n)
	}
	conn, err := net.Dial("tcp", "127.0.0.2"+k.port())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	eventually(t, 5*time.Second, func() bool { return k.visits.Load() > 0 })
}

// chaosSecrets tells the receivers the accounts' secrets. Those of accounts
// that sign up are asked for when they are needed, be the outbox down.
type chaosSecrets struct {
	pool  *pgxpool.Pool
	known sync.Map // account → secret
}

func newChaosSecrets(t *testing.T, outbox string) *chaosSecrets {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), outbox)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return &chaosSecrets{pool: pool}
}

func (s *chaosSecrets) read(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	rows, err := s.pool.Query(ctx, "SELECT account, secret FROM walhook.endpoint")
	if err != nil {
		return
	}
	var account, secret string
	_, _ = pgx.ForEachRow(rows, []any{&account, &secret}, func() error { // what is missing is asked for again
		s.known.Store(account, secret)
		return nil
	})
}

func (s *chaosSecrets) look(account string) string {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if secret, ok := s.known.Load(account); ok {
			return secret.(string)
		}
		s.read(context.Background())
	}
	return ""
}
