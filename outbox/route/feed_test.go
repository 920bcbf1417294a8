package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// smallCatalog has one of each: an account table with its own secrets, records
// owned directly, through a parent and through a parent's parent, and results.
const smallCatalog = `
account: {table: users, id: id, url: web_hook_url, parent: reseller_id, secret: web_hook_secret}
schemas:
  users: {table: users, owner: id, fields: [id, name, web_hook_url]}
  dids: {table: dids, owner: user_id, fields: [id, user_id, number]}
  faxes: {table: faxes, owner: {column: did_id, schema: dids}, fields: [id, did_id, pages]}
  pages: {table: pages, owner: {column: fax_id, schema: faxes}, fields: [id, fax_id]}
  notes: {table: notes, owner: user_id, fields: [id, note]}
results: {table: async_results}
events: {table: events}
`

const (
	oidInt  = 23
	oidText = 25
)

// The tables of the small catalog as the stream describes them. notes has the
// default replica identity: its old rows hold the key at most.
var (
	users   = newTable("users", 'f', "id name web_hook_url web_hook_secret")
	dids    = newTable("dids", 'f', "id user_id number")
	faxes   = newTable("faxes", 'f', "id did_id pages")
	pages   = newTable("pages", 'f', "id fax_id")
	notes   = newTable("notes", 'd', "id user_id note")
	results = newTable("async_results", 'd', "id user_id schema type status verbose")
	ghosts  = newTable("ghosts", 'f', "id")
)

type table struct{ relation *schemas.Relation }

func newTable(name string, identity schemas.ReplicaIdentity, columns string) table {
	r := &schemas.Relation{Namespace: "public", Name: name, Identity: identity, PrimaryKey: []int{0}, Types: pgjson.NewTypes()}
	for i, column := range strings.Fields(columns) {
		typ := uint32(oidText)
		if i == 0 || strings.HasSuffix(column, "_id") {
			typ = oidInt
		}
		r.Columns = append(r.Columns, schemas.Column{Name: column, Type: typ, Key: i == 0 || identity == 'f'})
	}
	return table{r}
}

// notSent stands for a value that the change does not carry.
const notSent = "\x00"

// row is a tuple of the texts of its values; nil is NULL.
func row(values ...any) schemas.Tuple {
	tuple := make(schemas.Tuple, len(values))
	for i, value := range values {
		switch text := fmt.Sprint(value); {
		case value == nil:
			tuple[i].State = schemas.Null
		case text != notSent:
			tuple[i] = schemas.Value{State: schemas.Text, Text: []byte(text)}
		}
	}
	return tuple
}

func (tb table) insert(values ...any) schemas.Change {
	return schemas.Change{Kind: schemas.Insert, Relation: tb.relation, New: row(values...)}
}

func (tb table) update(old, new schemas.Tuple) schemas.Change {
	return schemas.Change{Kind: schemas.Update, Relation: tb.relation, Old: old, New: new}
}

func (tb table) delete(values ...any) schemas.Change {
	return schemas.Change{Kind: schemas.Delete, Relation: tb.relation, Old: row(values...)}
}

func (tb table) truncate() schemas.Change {
	return schemas.Change{Kind: schemas.Truncate, Relation: tb.relation}
}

func message(content string) schemas.Change {
	return schemas.Change{Kind: schemas.Message, Prefix: schemas.MessagePrefix, Content: []byte(content), Transactional: true}
}

// account inserts an account that takes events at https://example.com/<id>.
func account(id int) schemas.Change {
	return users.insert(id, "n", fmt.Sprint("https://example.com/", id), nil)
}

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
