package outbox

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

func parsed(t *testing.T, text string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every process routes by the catalog that is stored, whatever it was started with.
func TestCatalog_TheStoredOneIsInForce(t *testing.T) {
	f := newFeed(t)
	inForce, err := f.store.CatalogInForce(t.Context())
	if err != nil || inForce == nil || !inForce.Same(parsed(t, f.catalog)) {
		t.Fatalf("after the snapshot %v is in force, err %v", inForce, err)
	}
	other := newPublisherOf(t, f.world, otherCatalog)
	if _, err := other.TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !other.Catalog().Same(inForce) {
		t.Error("a publisher with another file routes by it")
	}
}

const otherCatalog = `
account: {table: public.users, id: id, url: web_hook_url}
schemas:
  dids: {table: public.dids, owner: user_id, fields: [id, number]}
`

func TestCatalog_AnOutboxWithoutOneTakesThePublishersIfItWasSetUpWithIt(t *testing.T) {
	f := newFeed(t)
	for _, test := range []struct {
		fingerprint string
		want        bool
	}{{"another", false}, {parsed(t, f.catalog).Fingerprint(), true}} {
		f.exec(t, "DELETE FROM walhook.catalog")
		f.exec(t, "UPDATE walhook.source SET catalog = $1", test.fingerprint)
		f.takeOver(t)
		inForce, err := f.store.CatalogInForce(t.Context())
		if err != nil || (inForce != nil) != test.want {
			t.Errorf("set up with %s: %v is in force, err %v", test.fingerprint, inForce, err)
		}
	}
}

func TestCatalog_IsAskedForAndAdopted(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	next := parsed(t, otherCatalog)
	if err := f.publisher.Adopt(t.Context(), next, 0, nil); !errors.Is(err, errNotPending) {
		t.Errorf("a catalog that nobody asked for: %v", err)
	}
	f.takeOver(t)
	for range 2 { // twice is once
		if err := f.store.AskCatalog(t.Context(), next); err != nil {
			t.Fatal(err)
		}
	}
	pending, _, err := f.store.PendingCatalog(t.Context())
	if err != nil || !pending.Same(next) {
		t.Fatalf("pending: %v, err %v", pending, err)
	}
	if err := f.publisher.NotePending(t.Context(), next, "something runs"); err != nil {
		t.Fatal(err)
	}
	if _, note, _ := f.store.PendingCatalog(t.Context()); note != "something runs" {
		t.Errorf("note %q", note)
	}
	if err := f.store.AskCatalog(t.Context(), f.publisher.Catalog()); err != nil {
		t.Fatal(err)
	}
	if pending, _, _ := f.store.PendingCatalog(t.Context()); pending != nil {
		t.Error("asking for the catalog in force does not withdraw")
	}
	if err := f.store.AskCatalog(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	point := f.commitLSN + 0x100
	difference := f.publisher.Catalog().DifferenceTo(next)
	fill := func(sink catalog.SnapshotSink) error {
		for _, schema := range difference.Owners {
			if err := sink.Owner(t.Context(), schemas.OwnerEdge{Schema: schema, Key: "77", Account: "7"}); err != nil {
				return err
			}
		}
		return nil
	}
	if !difference.Reads() {
		point, fill = 0, nil
	}
	if err := f.publisher.Adopt(t.Context(), next, point, fill); err != nil {
		t.Fatal(err)
	}
	if names := one[string](t, f.world, "SELECT string_agg(schema, ',' ORDER BY schema) FROM walhook.ledger"); names != strings.Join(next.Ledgers(), ",") {
		t.Errorf("the ledger is complete of %s", names)
	}
	checkpoint := f.takeOver(t)
	if checkpoint.Source.Catalog != next.Fingerprint() || !f.publisher.Catalog().Same(next) {
		t.Errorf("after it %+v", checkpoint.Source)
	}
	if pending, _, _ := f.store.PendingCatalog(t.Context()); pending != nil {
		t.Error("still pending")
	}
}

// The owners of an ended schema do not delay the adoption. Maintenance deletes them bit by
// bit, and none of a schema that has begun again by then.
func TestCatalog_OwnersOfEndedSchemasAreForgottenAfterwards(t *testing.T) {
	f := newFeed(t)
	next := parsed(t, otherCatalog)
	if err := f.store.AskCatalog(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	const many = 2*forgetChunk + 7
	f.exec(t, "INSERT INTO walhook.owner (schema, key, account) SELECT s, n::text, '7' FROM generate_series(1, $1) n, unnest(ARRAY['dids', 'ended']) s ON CONFLICT DO NOTHING", many)
	kept := slices.Contains(f.publisher.Catalog().DifferenceTo(next).Kept, "dids")
	point, fill := f.commitLSN+0x100, func(catalog.SnapshotSink) error { return nil }
	if !f.publisher.Catalog().DifferenceTo(next).Reads() {
		point, fill = 0, nil
	}
	if err := f.publisher.Adopt(t.Context(), next, point, fill); err != nil {
		t.Fatal(err)
	}
	owners := func(schema string) int {
		return one[int](t, f.world, "SELECT count(*)::int FROM walhook.owner WHERE schema = '"+schema+"'")
	}
	if n := owners("ended"); n != many {
		t.Errorf("the adoption left %d owners of the ended schema", n)
	}
	dids := owners("dids")
	if kept != (dids > 0) {
		t.Errorf("kept: %t, %d owners", kept, dids)
	}
	f.exec(t, "INSERT INTO walhook.owner (schema, key, account) SELECT 'dids', n::text, '7' FROM generate_series(1, $1) n ON CONFLICT DO NOTHING", many)
	conn, err := f.store.pools.upkeep.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	// While another catalog comes into force, nothing is deleted.
	tx, err := f.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), pastCatalogSQL); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{many, 0} {
		if err := f.store.forgetEndedSchemas(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		_ = tx.Rollback(t.Context())
		if n := owners("ended"); n != want {
			t.Errorf("%d owners of the ended schema are left, want %d", n, want)
		}
	}
	if n := owners("dids"); n < many {
		t.Errorf("%d owners of the schema in force are left", n)
	}
}

func TestCatalog_OneOfANewerWalhookIsNamed(t *testing.T) {
	f := newFeed(t)
	f.exec(t, "UPDATE walhook.catalog SET content = convert_to('version: 9', 'UTF8')")
	_, err := f.publisher.TakeOver(t.Context())
	if err == nil || !strings.Contains(err.Error(), "a newer walhook may have stored it") {
		t.Errorf("took over with %v", err)
	}
}

// A schema that the catalog begins with is complete from there on, one that it ends with
// is known no more, and one that stays is as complete as it was.
func TestCatalog_AnAdoptedSchemaIsInTheLedger(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	ledger := func() []string {
		return strings.Fields(one[string](t, f.world, "SELECT coalesce(string_agg(schema, ' ' ORDER BY schema), '') FROM walhook.ledger"))
	}
	for _, step := range []struct {
		catalog  string
		complete bool // dids, which each of them has
		want     []string
	}{
		{otherCatalog, true, []string{"dids"}},
		{otherCatalog + "  lines: {table: public.lines, owner: user_id, fields: [id, user_id]}\n", true, []string{"dids", "lines"}},
		{otherCatalog, false, nil},
		{otherCatalog + "  lines: {table: public.lines, owner: user_id, fields: [id, user_id]}\n", false, []string{"lines"}},
	} {
		if !step.complete {
			f.exec(t, "DELETE FROM walhook.ledger WHERE schema = 'dids'")
		}
		next := parsed(t, step.catalog)
		if err := f.store.AskCatalog(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		if err := f.publisher.Adopt(t.Context(), next, firstLSN+0x10000, func(catalog.SnapshotSink) error { return nil }); err != nil {
			t.Fatal(err)
		}
		f.takeOver(t)
		if got := ledger(); !slices.Equal(got, step.want) {
			t.Errorf("the ledger has %v, want %v", got, step.want)
		}
	}
}
