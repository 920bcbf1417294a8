package outbox

import (
	"strings"
	"testing"

	"walhook/outbox/route/routetest"
	"walhook/outbox/storetest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// The small carrier that these tests share with those of outbox/route.
type table = routetest.Table

const (
	smallCatalog = routetest.Catalog
	notSent      = routetest.NotSent
)

var (
	users, dids, faxes, pages, notes, results, ghosts = routetest.Users, routetest.Dids, routetest.Faxes, routetest.Pages, routetest.Notes, routetest.Results, routetest.Ghosts

	newTable, row, message, account, batch = routetest.NewTable, routetest.Row, routetest.Message, routetest.Account, routetest.Batch
)

// feed is a publisher with the source's end of the stream in the test's hands.
type feed struct {
	*world
	publisher *Publisher
	commitLSN schemas.LSN
	catalog   string
}

const firstLSN = storetest.FirstLSN

var testSource = storetest.Source()

// newFeed is a publisher over an empty snapshot.
func newFeed(t *testing.T, change ...func(*Config)) *feed {
	t.Helper()
	return newFeedIn(t, newWorld(t, change...))
}

// newFeedAlone is one whose test changes the outbox's tables.
func newFeedAlone(t *testing.T) *feed {
	t.Helper()
	return newFeedIn(t, newWorldAlone(t))
}

func newFeedIn(t *testing.T, w *world) *feed {
	t.Helper()
	return newFeedOf(t, w, smallCatalog)
}

// newFeedOf is one by another catalog.
func newFeedOf(t *testing.T, w *world, text string) *feed {
	t.Helper()
	f := &feed{world: w, publisher: newPublisherOf(t, w, text), commitLSN: firstLSN, catalog: text}
	f.snapshot(t, firstLSN, func(catalog.SnapshotSink) error { return nil })
	f.takeOver(t)
	return f
}

func newPublisher(t *testing.T, w *world) *Publisher {
	t.Helper()
	return newPublisherOf(t, w, smallCatalog)
}

func newPublisherOf(t *testing.T, w *world, text string) *Publisher {
	t.Helper()
	catalog, err := catalog.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return w.store.Publisher(catalog)
}

func (f *feed) takeOver(t *testing.T) schemas.Checkpoint {
	t.Helper()
	return storetest.TakeOver(t, f.publisher)
}

// snapshot stores a whole first snapshot.
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

// events lists the log, a line each: account, webhook-id without the commit's
// place, record and body, the quotes of its data bare.
func (f *feed) events(t *testing.T) []string {
	t.Helper()
	lines := all[string](t, f.world, `
		SELECT format('%s %s %s %s', p.account, substring(e.webhook_id FROM '_[0-9]+[a-z]*$'), e.record, convert_from(e.body, 'UTF8'))
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], `\"`, `'`)
		lines[i] = strings.NewReplacer(`{"type":"`, ``, `","schema":"`, ` `, `","data":"`, ` `, `"}`, ``).Replace(lines[i])
	}
	return lines
}

// forget empties the log, so that what follows is seen alone.
func (f *feed) forget(t *testing.T) {
	t.Helper()
	f.exec(t, "DELETE FROM walhook.event")
}

// restart goes on with a new publisher that knows only what is stored.
func (f *feed) restart(t *testing.T) {
	t.Helper()
	f.publisher = newPublisherOf(t, f.world, f.catalog)
	f.takeOver(t)
}

// eitherWay runs a test twice: with a publisher that saw what came before, and
// with one that has to read it back for each batch.
func eitherWay(t *testing.T, run func(t *testing.T, f *feed, next func())) {
	t.Helper()
	t.Parallel()
	t.Run("remembering", func(t *testing.T) { f := newFeed(t); run(t, f, func() {}) })
	t.Run("restarted", func(t *testing.T) { f := newFeed(t); run(t, f, func() { f.restart(t) }) })
}
