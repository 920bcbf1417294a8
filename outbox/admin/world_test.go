package admin

import (
	"bytes"
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/outbox/route/routetest"
	"walhook/outbox/storetest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// world is an outbox that one test has to itself, and its administration.
type world struct {
	*storetest.World
	store *outbox.Store
	admin *Admin
}

func newWorld(t *testing.T, change ...func(*outbox.Config)) *world {
	t.Helper()
	return worldOf(t, storetest.New(t, outbox.Migrate), change...)
}

func newWorldAlone(t *testing.T, change ...func(*outbox.Config)) *world {
	t.Helper()
	return worldOf(t, storetest.NewAlone(t, outbox.Migrate), change...)
}

func worldOf(t *testing.T, base *storetest.World, change ...func(*outbox.Config)) *world {
	t.Helper()
	w := &world{World: base}
	w.open(t, change...)
	return w
}

// open gives the world a store, in place of the one that it has.
func (w *world) open(t *testing.T, change ...func(*outbox.Config)) {
	t.Helper()
	cfg := outbox.Config{URL: w.DB.URL}
	for _, f := range change {
		f(&cfg)
	}
	log := w.Log()
	store, err := outbox.Open(t.Context(), cfg, log, w.Reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.store, w.admin = store, New(store)
}

func withKey(fill byte) func(*outbox.Config) {
	return func(c *outbox.Config) { c.SecretKey = bytes.Repeat([]byte{fill}, 32) }
}

// lease is longer than any test takes, and not taken for one without end.
const lease = 9 * time.Minute

// join is a session that holds every shard that is free for it.
func (w *world) join(t *testing.T) (*outbox.Session, outbox.Handover) {
	t.Helper()
	s, err := w.store.Join(t.Context(), "test", lease)
	if err != nil {
		t.Fatal(err)
	}
	gained, _, err := s.Rebalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, gained
}

// expire ends every lease by the clock of the database.
func (w *world) expire(t *testing.T) {
	t.Helper()
	w.Exec(t, "UPDATE walhook.sender SET lease_until = clock_timestamp() - interval '1 ms'")
}

// whileRunning runs a loop of the store's until done, which is asked again and again.
func whileRunning(t *testing.T, loop func(context.Context) error, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop(ctx) }()
	storetest.Eventually(t, what, done)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The small carrier that these tests share with those of routing and of the outbox.
var (
	users, dids = routetest.Users, routetest.Dids

	row, account, batch = routetest.Row, routetest.Account, routetest.Batch

	members, member, memberInsert = routetest.Members, routetest.Member, routetest.MemberInsert

	setAccountURL = routetest.SetURL

	wantLines = storetest.WantLines
)

const (
	urlA = routetest.URLA
	urlB = routetest.URLB
)

func setURL(from, to any) schemas.Change { return setAccountURL(7, from, to) }

func load(t *testing.T, accounts map[string]string) func(catalog.SnapshotSink) error {
	return storetest.Load(t, accounts)
}

func one[T any](t *testing.T, w *world, sql string, args ...any) T {
	t.Helper()
	return storetest.One[T](t, w.World, sql, args...)
}

func all[T any](t *testing.T, w *world, sql string, args ...any) []T {
	t.Helper()
	return storetest.All[T](t, w.World, sql, args...)
}

// about says whether two instants are the same but for the time that has passed since
// began.
func about(a, b, began time.Time) bool { return a.Sub(b).Abs() <= time.Since(began)+time.Millisecond }

// feed is a publisher with the source's end of the stream in the test's hands.
type feed struct {
	*world
	publisher *outbox.Publisher
	commitLSN schemas.LSN
}

const firstLSN = storetest.FirstLSN

// newFeed is a publisher over an empty snapshot.
func newFeed(t *testing.T, change ...func(*outbox.Config)) *feed {
	t.Helper()
	f := &feed{world: newWorld(t, change...), commitLSN: firstLSN}
	f.publisher = f.newPublisher(t)
	f.snapshot(t, firstLSN, func(catalog.SnapshotSink) error { return nil })
	f.takeOver(t)
	return f
}

func (f *feed) newPublisher(t *testing.T) *outbox.Publisher {
	t.Helper()
	small, err := catalog.Parse([]byte(routetest.Catalog))
	if err != nil {
		t.Fatal(err)
	}
	return f.store.Publisher(small)
}

func (f *feed) takeOver(t *testing.T) {
	t.Helper()
	storetest.TakeOver(t, f.publisher)
}

func (f *feed) snapshot(t *testing.T, point schemas.LSN, fill func(catalog.SnapshotSink) error) {
	t.Helper()
	storetest.Snapshot(t, f.publisher, point, fill)
}

// tx makes one committed transaction of changes.
func (f *feed) tx(changes ...schemas.Change) []schemas.Change {
	f.commitLSN += 0x100
	return routetest.Tx(f.commitLSN, changes...)
}

func (f *feed) append(t *testing.T, b schemas.Batch) {
	t.Helper()
	storetest.Append(t, f.publisher, b)
}

// commit appends one transaction as a batch of its own.
func (f *feed) commit(t *testing.T, changes ...schemas.Change) {
	t.Helper()
	f.append(t, batch(f.tx(changes...)))
}

// forget empties the log, so that what follows is seen alone.
func (f *feed) forget(t *testing.T) {
	t.Helper()
	f.Exec(t, "DELETE FROM walhook.event")
}

// restart goes on with a new publisher that knows only what is stored.
func (f *feed) restart(t *testing.T) {
	t.Helper()
	f.publisher = f.newPublisher(t)
	f.takeOver(t)
}

// eitherWay runs a test twice: with a publisher that saw what came before, and with
// one that has to read it back for each batch.
func eitherWay(t *testing.T, run func(t *testing.T, f *feed, next func())) {
	t.Helper()
	t.Parallel()
	t.Run("remembering", func(t *testing.T) { f := newFeed(t); run(t, f, func() {}) })
	t.Run("restarted", func(t *testing.T) { f := newFeed(t); run(t, f, func() { f.restart(t) }) })
}

// hook is a webhook of an account as the API makes one.
func hook(account, url string) Webhook {
	return Webhook{Account: account, Name: "n", URL: url, Enabled: true, HTTPVerb: "post", Hook: HookRecords, Delivery: "realtime", DailyZone: "UTC"}
}

func (f *feed) create(t *testing.T, w Webhook) Webhook {
	t.Helper()
	made, err := f.admin.CreateWebhook(t.Context(), w, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// secretsOf are an account's secrets as a sender gets them.
func (f *feed) secretsOf(t *testing.T, account string) []string {
	t.Helper()
	s, err := f.store.Join(t.Context(), "reader", lease)
	if err != nil {
		t.Fatal(err)
	}
	endpoints, err := s.Endpoints(t.Context(), []int64{f.EndpointOf(t, account)})
	if err != nil || len(endpoints) != 1 {
		t.Fatal(endpoints, err)
	}
	listed, err := f.admin.EndpointSecrets(t.Context(), account)
	if err != nil || !slices.Equal(listed, endpoints[0].Secrets) {
		t.Errorf("people are told %d secrets, senders %d; %v", len(listed), len(endpoints[0].Secrets), err)
	}
	return endpoints[0].Secrets
}
