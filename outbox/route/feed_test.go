package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/outbox/route/routetest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// The small carrier that these tests share with those of outbox.
const (
	smallCatalog = routetest.Catalog
	notSent      = routetest.NotSent
)

var (
	users, dids, faxes, pages, notes, results, ghosts = routetest.Users, routetest.Dids, routetest.Faxes, routetest.Pages, routetest.Notes, routetest.Results, routetest.Ghosts

	row, message, account = routetest.Row, routetest.Message, routetest.Account
)

// newView is the view of an empty outbox.
func newView(tb testing.TB, text string) *View {
	tb.Helper()
	cat, err := catalog.Parse([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	v := NewView(cat)
	v.MaxEventBytes = 1 << 20
	return v
}

// feed is an outbox in memory with the source's end of the stream in the test's
// hands. It stores what plans say and lets the view know what it asks for.
type feed struct {
	view      *View
	catalog   string
	commitLSN schemas.LSN

	owners   map[RecordKey]Ownership
	columns  map[string][]string
	parents  map[string]string
	rows     map[string]*endpointRow // by account: its own endpoint
	inserted int64
	log      []Event
	unrouted []Unrouted
	notes    []Note
	skipped  map[Reason]int
	asked    int // records that were looked for
}

func newFeed(tb testing.TB) *feed { return newFeedOf(tb, smallCatalog) }

func newFeedOf(tb testing.TB, catalog string) *feed {
	tb.Helper()
	return &feed{
		view: newView(tb, catalog), catalog: catalog, commitLSN: 0x1000,
		owners: map[RecordKey]Ownership{}, columns: map[string][]string{}, parents: map[string]string{},
		rows: map[string]*endpointRow{}, skipped: map[Reason]int{},
	}
}

// tx makes one committed transaction of changes.
func (f *feed) tx(changes ...schemas.Change) []schemas.Change {
	f.commitLSN += 0x100
	for i := range changes {
		changes[i].Position = schemas.Position{Commit: f.commitLSN, Ordinal: int64(i + 1)}
		changes[i].CommittedAt = time.Unix(1_700_000_000, 0)
	}
	return changes
}

// commit appends one transaction as a batch of its own.
func (f *feed) commit(changes ...schemas.Change) { f.append(f.tx(changes...)) }

// append appends transactions as one batch.
func (f *feed) append(transactions ...[]schemas.Change) {
	f.store(f.route(slices.Concat(transactions...)))
}

// route makes a plan of a batch, of which nothing is stored yet.
func (f *feed) route(changes []schemas.Change) *Plan {
	f.fetch(changes)
	return Route(f.view, changes, Part{End: len(changes)}, nil, nil)
}

// fetch fills the view's caches with what routing the changes may ask for.
func (f *feed) fetch(changes []schemas.Change) {
	f.view.Owners.Age()
	for k := range f.view.OwnersNeeded(changes) {
		f.asked++
		if o, known := f.owners[k]; known {
			f.view.Owners.Set(k, o)
		}
	}
	f.view.Columns.Age()
	for account := range f.view.ColumnsNeeded(changes) {
		f.view.Columns.Set(account, f.columns[account])
	}
}

// store commits a plan.
func (f *feed) store(p *Plan) {
	for _, w := range p.Endpoints {
		f.storeEndpoint(w)
	}
	for _, schema := range p.ForgottenOwners {
		maps.DeleteFunc(f.owners, func(k RecordKey, _ Ownership) bool { return k.Schema == schema })
	}
	for k, o := range p.Owners {
		switch {
		case o.Dropped:
			delete(f.owners, k)
		case !o.Stored:
			f.owners[k] = o.Ownership
		}
	}
	if p.NoAccounts {
		clear(f.parents)
		clear(f.columns)
	}
	for account, parent := range p.Parents {
		if parent == "" {
			delete(f.parents, account)
		} else {
			f.parents[account] = parent
		}
	}
	maps.Copy(f.columns, p.Columns)
	f.log = append(f.log, p.Events...)
	f.unrouted = append(f.unrouted, p.Unrouted...)
	f.notes = append(f.notes, p.Notes...)
	for reason, n := range p.Skipped {
		f.skipped[reason] += n
	}
	f.view.Apply(p)
}

func (f *feed) storeEndpoint(w *EndpointWrite) {
	to := w.Endpoint
	stored := f.rows[to.Account]
	if stored == nil || w.Begins && stored.ended {
		f.inserted++
		stored = &endpointRow{Endpoint: Endpoint{Account: to.Account, ID: f.inserted}}
		f.rows[to.Account] = stored
	}
	to.ID, to.Revision = stored.ID, stored.Revision+1
	*stored = endpointRow{Endpoint: *to, cleared: w.Change == URLCleared, ended: w.Ended}
}

// endpointRow is what is stored of an endpoint.
type endpointRow struct {
	Endpoint
	cleared, ended bool
}

// restart goes on with a view that knows only what is stored.
func (f *feed) restart(t *testing.T) {
	t.Helper()
	was := f.view
	f.view = newView(t, f.catalog)
	f.view.NextID, f.view.Deleted, f.view.Parents = was.NextID, was.Deleted, maps.Clone(f.parents)
	for account, row := range f.rows {
		if !row.cleared && !row.ended {
			f.view.Endpoints[account] = new(row.Endpoint)
		}
	}
	for k, o := range f.owners {
		f.view.Unknown[k.Schema] = f.view.Unknown[k.Schema] || o.Unknown
	}
	f.view.SetWebhooks(was.WebhooksVersion, was.Webhooks)
}

// eitherWay runs a test twice: with a view that saw what came before, and with one
// that has to learn it again for each batch.
func eitherWay(t *testing.T, run func(t *testing.T, f *feed, next func())) {
	t.Helper()
	t.Run("remembering", func(t *testing.T) { f := newFeed(t); run(t, f, func() {}) })
	t.Run("restarted", func(t *testing.T) { f := newFeed(t); run(t, f, func() { f.restart(t) }) })
}

// forget empties the event log, so that what follows is seen alone.
func (f *feed) forget() { f.log = nil }

// line is an event as a test reads it: account, webhook-id without the commit's
// LSN, record and body, the quotes of its data bare.
func line(e Event) string {
	body := strings.ReplaceAll(string(e.Body), `\"`, `'`)
	body = strings.NewReplacer(`{"type":"`, ``, `","schema":"`, ` `, `","data":"`, ` `, `"}`, ``).Replace(body)
	return fmt.Sprintf("%s %s %s %s", e.To.Account, e.WebhookID[strings.LastIndex(e.WebhookID, "_"):], e.Record, body)
}

func (f *feed) events() (lines []string) {
	for _, e := range f.log {
		lines = append(lines, line(e))
	}
	return lines
}

// listed are the changes that are listed as unrouted, a line each.
func (f *feed) listed() (lines []string) {
	for _, u := range f.unrouted {
		lines = append(lines, fmt.Sprintf("%d %s %s %s %s", u.Position.Ordinal, u.Schema, u.Type, u.Key, u.Reason))
	}
	return lines
}

// wantLines compares what there is with what is wanted, a line each.
func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// rest is lines without the first n.
func rest(lines []string, n int) []string { return lines[min(n, len(lines)):] }

func (f *feed) wantSkipped(t *testing.T, want map[Reason]int) {
	t.Helper()
	if !maps.Equal(f.skipped, want) {
		t.Errorf("skipped %v, want %v", f.skipped, want)
	}
}
