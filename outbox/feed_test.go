package outbox

import (
	"fmt"
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

// feed is a publisher with the source's end of the stream in the test's hands.
type feed struct {
	*world
	publisher *Publisher
	commitLSN schemas.LSN
	catalog   string
}

// firstLSN is where the source stands when a feed begins.
const firstLSN = 0x1000

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
func newFeedOf(t *testing.T, w *world, catalog string) *feed {
	t.Helper()
	f := &feed{world: w, publisher: newPublisherOf(t, w, catalog), commitLSN: firstLSN, catalog: catalog}
	f.snapshot(t, firstLSN, func(*SnapshotWriter) error { return nil })
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
	checkpoint, err := f.publisher.TakeOver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return checkpoint
}

var testSource = schemas.Source{SystemID: "1", Timeline: 1, Database: "d", Slot: "walhook", Publication: "walhook", Catalog: "c"}

// snapshot stores a whole first snapshot.
func (f *feed) snapshot(t *testing.T, point schemas.LSN, fill func(*SnapshotWriter) error) {
	t.Helper()
	f.takeOver(t)
	if err := f.publisher.BeginSnapshot(t.Context(), testSource); err != nil {
		t.Fatal(err)
	}
	if err := f.publisher.LoadSnapshot(t.Context(), point, fill); err != nil {
		t.Fatal(err)
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

// batch joins transactions as the reader hands them over.
func batch(transactions ...[]schemas.Change) schemas.Batch {
	var b schemas.Batch
	for _, changes := range transactions {
		b.Changes = append(b.Changes, changes...)
	}
	b.Position = b.Changes[len(b.Changes)-1].Position
	b.Flush, b.Xid = b.Position.Commit+8, 700
	return b
}

func (f *feed) append(t *testing.T, b schemas.Batch) {
	t.Helper()
	if err := f.publisher.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
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
