package endtoend

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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

const (
	modelSeed     = 3  // of the short run
	modelAccounts = 6  // at first
	modelMost     = 40 // accounts
	modelWriters  = 4
)

// TestModel_WhoAppliesWhatArrivesHasTheSource makes a random history: rows come, change,
// move, change their keys and go; accounts begin; URLs are set and cleared; the catalog changes; the slot is
// lost and the gap accepted; the present state is asked for; commits wait for a synchronous
// standby; processes are killed. Whenever the writers rest, each receiver that has applied
// its events in the order of their arrival has the rows of the source, and no event ever
// took a record back to what it was before.
//
// The plan follows from the seed; what it meets does not.
func TestModel_WhoAppliesWhatArrivesHasTheSource(t *testing.T) {
	t.Parallel()
	m := newModelWorld(t, cmp.Or(*seedFlag, modelSeed))
	m.play(t, m.publish)
	end := time.Now().Add(*modelFlag)
	for _, act := range []func(*testing.T){m.kill, m.loseSlot, m.changeCatalog, m.changeURLs, m.resync, m.loseSlot, m.changeCatalog} {
		m.play(t, act)
	}
	for time.Now().Before(end) && !t.Failed() {
		acts := []func(*testing.T){m.kill, m.loseSlot, m.changeCatalog, m.changeURLs, m.resync}
		m.play(t, acts[m.random.IntN(len(acts))])
	}
	t.Logf("seed %d: %d transactions, %d times compared; acts %v; events %v", m.seed, m.written.Load(), m.compared, m.acts, m.receiver.counts())
}

// modelWorld is a carrier, an outbox, a walhook that does everything, and its receivers.
type modelWorld struct {
	seed     uint64
	random   *rand.Rand
	source   *pgtest.DB // on a server of its own
	admin    *pgx.Conn  // to it, which waits for no standby
	outbox   *pgtest.DB
	stored   *pgx.Conn // to it
	slot     string
	catalogs [2]string // files
	inForce  int
	owners   bool            // another catalog is in force since all places changed
	since    map[uint64]bool // by position: which catalog is in force from there on, true for the second
	run      *actor
	receiver *modelReceiver
	accounts []modelAccount
	number   atomic.Int64 // of accounts, for the writers
	writers  []*modelWriter
	written  atomic.Int64
	acts     map[string]int
	compared int
}

// modelAccount is what the test has done about an account's URL. Each URL is that of a new
// receiver, which knows nothing.
type modelAccount struct {
	url       int  // counts the URLs; 0 while it is cleared
	urls      int  // that there were
	synced    bool // its receiver began with the account, or was sent the present state
	forExtras bool // and also since extras are in the catalog
}

func newModelWorld(t *testing.T, seed uint64) *modelWorld {
	t.Helper()
	m := &modelWorld{seed: seed, random: rand.New(rand.NewPCG(seed, 1)), slot: "model", accounts: make([]modelAccount, modelAccounts), acts: map[string]int{}, since: map[uint64]bool{}}
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"wal_sender_timeout": "5s"}})
	m.source, m.outbox = pgtest.NewDatabase(t, cluster), pgtest.Database(t)
	m.admin, m.stored = m.source.Connect(t), m.outbox.Connect(t)
	for i, text := range modelCatalogs {
		m.catalogs[i] = filepath.Join(t.TempDir(), fmt.Sprintf("catalog%d.yaml", i))
		if err := os.WriteFile(m.catalogs[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.exec(t, "SET synchronous_commit = local")
	m.exec(t, modelTables)
	m.receiver = newModelReceiver(t, seed)
	for i := range m.accounts {
		m.exec(t, fmt.Sprintf("INSERT INTO account VALUES (%d)", i+1))
		m.setURL(t, i)
		m.accounts[i].synced = true
	}
	m.number.Store(modelAccounts)
	for i := range modelWriters {
		m.writers = append(m.writers, &modelWriter{number: int64(i + 1), accounts: &m.number, url: m.source.URL, written: &m.written,
			random: rand.New(rand.NewPCG(seed, uint64(100+i))), parts: map[int64]int{}})
	}
	mustRun(t, m.setup()...)
	m.run = newActor(t, "run", "--source", m.source.URL, "--outbox", m.outbox.URL, "--slot", m.slot, "--catalog", m.catalogs[0],
		"--allow-cidr", "127.0.0.1/32", "--retry-schedule", "100ms"+strings.Repeat(",300ms", 1000))
	return m
}

func (m *modelWorld) setup(more ...string) []string {
	return append([]string{"setup", "--source", m.source.URL, "--outbox", m.outbox.URL, "--slot", m.slot, "--catalog", m.catalogs[m.inForce]}, more...)
}

func (m *modelWorld) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := m.admin.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (m *modelWorld) setURL(t *testing.T, i int) {
	a := &m.accounts[i]
	a.urls++
	a.url, a.synced, a.forExtras = a.urls, false, false
	m.exec(t, fmt.Sprintf("UPDATE account SET url = '%s%s' WHERE id = %d", m.receiver.server.URL, m.path(i), i+1))
}

// beginAccount makes an account with a URL, whose receiver gets all of it as inserts.
func (m *modelWorld) beginAccount(t *testing.T) {
	if len(m.accounts) == modelMost {
		return
	}
	m.acts["began account"]++
	i := len(m.accounts)
	m.accounts = append(m.accounts, modelAccount{url: 1, urls: 1, synced: true, forExtras: m.inForce == 1})
	m.receiver.begin(m.path(i))
	m.exec(t, fmt.Sprintf("INSERT INTO account VALUES (%d, '%s%s')", i+1, m.receiver.server.URL, m.path(i)))
	m.number.Add(1)
	m.pause(50, 300)
}

func (m *modelWorld) path(i int) string {
	return fmt.Sprintf("/account%d/%d", i+1, m.accounts[i].url)
}

// play runs an act while the writers write, and compares when they rest.
func (m *modelWorld) play(t *testing.T, act func(*testing.T)) {
	t.Helper()
	if t.Failed() {
		return
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	group := errgroup.Group{}
	for _, w := range m.writers {
		group.Go(func() error { return w.run(t, ctx) })
	}
	m.receiver.mu.Lock()
	m.receiver.fails = m.random.IntN(2) == 0
	m.receiver.mu.Unlock()
	m.pause(300, 700)
	act(t)
	m.pause(100, 700)
	stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	m.compare(t)
}

// pause lets the writers write for a while.
func (m *modelWorld) pause(least, more int) {
	time.Sleep(time.Duration(least+m.random.IntN(more)) * time.Millisecond)
}

func (m *modelWorld) chance(percent int) bool { return m.random.IntN(100) < percent }

func (m *modelWorld) publish(t *testing.T) { startAll(t, m.run) }

// kill kills the process that does everything.
func (m *modelWorld) kill(t *testing.T) {
	m.acts["killed"]++
	_ = m.run.end(syscall.SIGKILL)
	startAll(t, m.run)
}

// loseSlot drops the slot, and accepts the gap after a while. Both the setup and the
// publisher that follows may be killed in the middle of it.
func (m *modelWorld) loseSlot(t *testing.T) {
	m.acts["lost slot"]++
	_ = m.run.end([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[m.random.IntN(2)])
	eventually(t, patience, func() bool {
		_, err := m.admin.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", m.slot)
		return err == nil
	})
	m.pause(200, 1500)
	if m.chance(50) {
		m.changeURLs(t)
	}
	for m.chance(50) {
		m.beginAccount(t)
	}
	if m.chance(30) { // a row keeps its xmin, and has another place or is locked by another transaction
		m.exec(t, "VACUUM FULL item")
		m.exec(t, "VACUUM (FREEZE) place")
		m.acts["rewritten"]++
	}
	resume := func() {}
	if m.chance(40) {
		resume = m.holdCommits(t)
	}
	if m.chance(40) {
		m.acts["killed setup"]++
		setup := childCommand(t, m.setup("--accept-gap")...)
		if err := setup.Start(); err != nil {
			t.Fatal(err)
		}
		m.pause(50, 800)
		_ = setup.Process.Kill()
		_ = setup.Wait()
	}
	resume()
	mustRun(t, m.setup("--accept-gap")...)
	startAll(t, m.run)
	if m.chance(40) {
		m.pause(50, 500)
		m.kill(t)
	}
}

// holdCommits makes commits wait for a standby that does not exist, for a while: they are
// in the WAL, and nobody sees them. It returns what waits until they are seen.
func (m *modelWorld) holdCommits(t *testing.T) (resume func()) {
	m.acts["held commits"]++
	m.exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	m.exec(t, "SELECT pg_reload_conf()")
	m.pause(200, 300)
	end := time.After(time.Duration(300+m.random.IntN(500)) * time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-end
		conn, err := pgx.Connect(t.Context(), m.source.URL)
		if err == nil {
			defer conn.Close(t.Context())
			for _, sql := range []string{"SET synchronous_commit = local", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"} {
				if err == nil {
					_, err = conn.Exec(t.Context(), sql)
				}
			}
		}
		if err != nil {
			t.Errorf("let commits go on: %v", err)
		}
	}()
	return func() { <-done }
}

// changeCatalog puts the other catalog in force while everything runs.
func (m *modelWorld) changeCatalog(t *testing.T) {
	m.acts["changed catalog"]++
	m.inForce, m.owners = 1-m.inForce, true
	done := make(chan struct{})
	if m.chance(30) {
		go func() {
			defer close(done)
			time.Sleep(200 * time.Millisecond)
			m.kill(t)
		}()
	} else {
		close(done)
	}
	out, err := walhook(t, m.setup()...)
	<-done
	if err != nil {
		t.Fatalf("setup of the changed catalog: %v\n%s", err, out)
	}
}

// changeURLs sets and clears URLs of some accounts.
func (m *modelWorld) changeURLs(t *testing.T) {
	m.acts["changed URLs"]++
	for i := range m.accounts {
		switch {
		case m.chance(60):
		case m.accounts[i].url != 0 && m.chance(40):
			m.accounts[i].url = 0
			m.exec(t, fmt.Sprintf("UPDATE account SET url = NULL WHERE id = %d", i+1))
		default:
			m.setURL(t, i)
		}
	}
	if m.chance(20) {
		m.beginAccount(t)
	}
}

// resync asks for the present state for whoever lacks it, and for one other account. The
// publisher may be killed meanwhile.
func (m *modelWorld) resync(t *testing.T) {
	other := m.random.IntN(len(m.accounts))
	resume := func() {}
	if m.chance(50) {
		resume = m.holdCommits(t)
	}
	group := errgroup.Group{}
	for i := range m.accounts {
		a := &m.accounts[i]
		if a.url == 0 || i != other && m.complete(i) {
			continue
		}
		m.acts["resync"]++
		m.awaitURL(t, i)
		group.Go(func() error {
			out, err := walhook(t, "resync", fmt.Sprint(i+1), "--wait", "--outbox", m.outbox.URL)
			if err != nil {
				return fmt.Errorf("resync: %w\n%s", err, out)
			}
			a.synced, a.forExtras = true, m.inForce == 1
			return nil
		})
	}
	if m.chance(40) {
		m.pause(50, 300)
		m.kill(t)
	}
	resume()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// awaitURL waits until the outbox has an account's URL: what is asked for before is for the
// receiver of the former one.
func (m *modelWorld) awaitURL(t *testing.T, i int) {
	t.Helper()
	const sql = `SELECT EXISTS (SELECT FROM walhook.endpoint WHERE account = $1 AND webhook = 'account' AND url = $2 AND state = 'active')`
	eventually(t, patience, func() (known bool) {
		if err := m.stored.QueryRow(t.Context(), sql, fmt.Sprint(i+1), m.receiver.server.URL+m.path(i)).Scan(&known); err != nil {
			t.Fatal(err)
		}
		return known
	})
}

// complete says whether a receiver must have all rows of its account.
func (m *modelWorld) complete(i int) bool {
	return m.accounts[i].synced && (m.inForce == 0 || m.accounts[i].forExtras)
}

// compare waits until each receiver has the rows of its account. Nobody writes now.
func (m *modelWorld) compare(t *testing.T) {
	t.Helper()
	if m.owners { // a record goes over to its new owner when it changes
		m.exec(t, "UPDATE place SET n = nextval('tick')")
		m.owners = false
	}
	for i := range m.accounts {
		if m.accounts[i].url != 0 && !m.complete(i) {
			m.resync(t)
			break
		}
	}
	m.compared++
	want := m.rows(t)
	var differences []string
	deadline := time.Now().Add(patience)
	for {
		differences = nil
		for i := range m.accounts {
			if m.accounts[i].url != 0 {
				differences = append(differences, m.differences(i, want[int64(i+1)])...)
			}
		}
		wrong := m.receiver.judged()
		if len(wrong) > 0 {
			t.Fatalf("seed %d, after %v: %d wrong events: %s", m.seed, m.acts, len(wrong), strings.Join(wrong[:min(len(wrong), 8)], "\n"))
		}
		if len(differences) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("seed %d, after %v: %d differences:\n%s", m.seed, m.acts, len(differences), strings.Join(differences[:min(len(differences), 20)], "\n"))
		}
		time.Sleep(20 * time.Millisecond)
	}
	m.compareCatalogs(t)
	if m.inForce == 0 {
		m.receiver.forget("extras")
		for i := range m.accounts {
			m.accounts[i].forExtras = false
		}
	}
}

// compareCatalogs looks whether each event of an item has the fields of the catalog that was
// in force where its transaction committed.
func (m *modelWorld) compareCatalogs(t *testing.T) {
	t.Helper()
	rows, err := m.stored.Query(t.Context(), `
		SELECT (from_lsn - '0/0'::pg_lsn)::bigint, position('extras' IN convert_from(content, 'UTF8')) > 0
		FROM walhook.catalog WHERE state <> 'pending' AND from_lsn IS NOT NULL`)
	var from uint64
	var second bool
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&from, &second}, func() error { m.since[from] = second; return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	switches := slices.Sorted(maps.Keys(m.since))
	for at, second := range m.receiver.takeShapes() {
		i, found := slices.BinarySearch(switches, at)
		if !found {
			i--
		}
		if i >= 0 && m.since[switches[i]] != second {
			t.Errorf("seed %d: an event of the commit at %X has the fields of the other catalog (second: %t), in force since %X", m.seed, at, second, switches[i])
		}
	}
}

// rows reads the rows of each account as receivers must have them.
func (m *modelWorld) rows(t *testing.T) map[int64]map[string]int64 {
	t.Helper()
	sql := `
		SELECT account, 'items/' || id, n FROM item
		UNION ALL SELECT i.account, 'parts/' || p.id, p.n FROM part p JOIN item i ON i.id = p.item
		UNION ALL SELECT %s, 'places/' || area || '/' || num, n FROM place`
	sql = fmt.Sprintf(sql, []string{"account", "holder"}[m.inForce])
	if m.inForce == 1 {
		sql += " UNION ALL SELECT account, 'extras/' || id, n FROM extra"
	}
	rows, err := m.admin.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int64]map[string]int64{}
	var account, n int64
	var record string
	_, err = pgx.ForEachRow(rows, []any{&account, &record, &n}, func() error {
		if want[account] == nil {
			want[account] = map[string]int64{}
		}
		want[account][record] = n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func (m *modelWorld) differences(i int, want map[string]int64) (differences []string) {
	got := m.receiver.numbers(m.path(i))
	for record, n := range want {
		if has, there := got[record]; !there {
			differences = append(differences, fmt.Sprintf("%s lacks %s at %d", m.path(i), record, n))
		} else if has != n {
			differences = append(differences, fmt.Sprintf("%s has %s at %d, want %d", m.path(i), record, has, n))
		}
	}
	for record, n := range got {
		if _, there := want[record]; !there && (m.inForce == 1 || !strings.HasPrefix(record, "extras/")) {
			differences = append(differences, fmt.Sprintf("%s has %s at %d, which is gone", m.path(i), record, n))
		}
	}
	slices.Sort(differences)
	return differences
}
