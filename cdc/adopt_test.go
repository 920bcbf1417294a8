package cdc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/internal/pgtest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// things are added to what testCatalog names.
const adoptedCatalog = testCatalog + `
  things: {table: public.things, owner: {column: item_id, schema: items}, fields: [id, item_id]}
`

// writers change items and things as fast as the server lets them, until the test stops
// them. Each row's number is that of its writer's transaction.
type writers struct {
	stopped atomic.Bool
	group   sync.WaitGroup
}

func (w *world) writeThings(t *testing.T, n int) *writers {
	t.Helper()
	all := &writers{}
	for i := range n {
		conn := w.Connect(t)
		all.group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 17))
			for id := i; !all.stopped.Load(); id += n {
				sql := fmt.Sprintf("INSERT INTO items VALUES (%d, %d, 'n'); INSERT INTO things VALUES (%d, %d)", id, random.IntN(5), id, id)
				switch random.IntN(4) {
				case 0:
					sql += fmt.Sprintf("; UPDATE things SET item_id = item_id WHERE id = %d", id)
				case 1:
					sql += fmt.Sprintf("; DELETE FROM things WHERE id = %d", id-n)
				case 2:
					sql = "BEGIN; " + sql + "; SELECT pg_sleep(0.005); COMMIT"
				}
				if _, err := conn.Exec(context.Background(), sql); err != nil {
					t.Errorf("%s: %v", sql, err)
					return
				}
			}
		})
	}
	t.Cleanup(all.stop)
	return all
}

func (w *writers) stop() {
	w.stopped.Store(true)
	w.group.Wait()
}

const thingsTable = "CREATE TABLE things (id int PRIMARY KEY, item_id int); ALTER TABLE things REPLICA IDENTITY FULL; "

// What committed before the point was received before it, and all else after; what was
// read is the state that the former makes.
func TestAdopt_TakesEffectAtOnePosition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, thingsTable)
	all := w.writeThings(t, 4)
	r := w.start(t)
	r.reads(t, patience)
	for round, text := range []string{adoptedCatalog, testCatalog, adoptedCatalog} {
		before := len(w.store.stored())
		w.store.wait(t, "changes", func() bool { return len(w.store.changes) > before+200 })
		w.store.ask(catalogOf(t, text))
		w.store.wait(t, "adoption", func() bool { return len(w.store.adopted) > round })
	}
	stored := len(w.store.stored())
	w.store.wait(t, "changes", func() bool { return len(w.store.changes) > stored+200 })
	all.stop()
	w.settle(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	changes := w.store.stored()
	for i, a := range w.store.adopted {
		if a.point == 0 {
			if i != 1 {
				t.Errorf("adoption %d read nothing", i)
			}
			continue
		}
		for j, c := range changes {
			if before := j < a.before; before != (c.Position.Commit < a.point) {
				t.Fatalf("adoption %d at %s: change %d at %s is on the wrong side (%d before)", i, a.point, j, c.Position, a.before)
			}
		}
		wantThings(t, a, changes[:a.before])
	}
	wantAllRows(t, w, changes)
}

// wantThings compares the owners that were read with what changes made.
func wantThings(t *testing.T, a adoption, changes []schemas.Change) {
	t.Helper()
	want, items := map[schemas.OwnerEdge]bool{}, map[string]string{}
	text := func(row schemas.Tuple, at int) string { return string(row[at].Text) }
	for _, c := range changes {
		if c.Relation == nil {
			continue
		}
		switch c.Relation.Name {
		case "items":
			if c.New != nil {
				items[text(c.New, 0)] = text(c.New, 1)
			}
		case "things":
			if c.Old != nil {
				delete(want, schemas.OwnerEdge{Schema: "things", Key: text(c.Old, 0), Account: items[text(c.Old, 1)]})
			}
			if c.New != nil {
				want[schemas.OwnerEdge{Schema: "things", Key: text(c.New, 0), Account: items[text(c.New, 1)]}] = true
			}
		}
	}
	for edge := range want {
		if !a.owners[edge] {
			t.Errorf("%+v was not read", edge)
		}
	}
	for edge := range a.owners {
		if !want[edge] {
			t.Errorf("%+v was read and is not what the changes made", edge)
		}
	}
	if len(want) == 0 {
		t.Error("nothing to read")
	}
}

// wantAllRows compares the rows of the source with those that were stored.
func wantAllRows(t *testing.T, w *world, changes []schemas.Change) {
	t.Helper()
	var rows, inserts int
	for _, c := range changes {
		if c.Relation != nil && c.Relation.Name == "items" && c.Kind == schemas.Insert {
			inserts++
		}
	}
	if err := w.conn.QueryRow(t.Context(), "SELECT count(*) FROM items").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows != inserts {
		t.Errorf("%d rows, %d were stored", rows, inserts)
	}
	for _, fault := range w.store.faults {
		t.Errorf("stored: %s", fault)
	}
}

// While a transaction stays open, the former catalog is in force, and changes flow.
func TestAdopt_WaitsForOpenTransactionsWhileChangesFlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, thingsTable)
	open := w.Connect(t)
	execOn(t, open, "BEGIN", "INSERT INTO things VALUES (1, 1)")
	r := w.start(t)
	r.reads(t, patience)
	w.store.ask(catalogOf(t, adoptedCatalog))
	for i := range 20 {
		w.exec(t, fmt.Sprintf("INSERT INTO items VALUES (%d, 1, 'n')", i))
		w.settle(t)
		time.Sleep(pendingEvery / 10)
	}
	if n := look(w.store, func() int { return len(w.store.adopted) }); n > 0 {
		t.Error("adopted while a transaction was open")
	}
	execOn(t, open, "COMMIT")
	w.store.wait(t, "adoption", func() bool { return len(w.store.adopted) == 1 })
	w.settle(t)
	if a := w.store.adopted[0]; !a.owners[schemas.OwnerEdge{Schema: "things", Key: "1", Account: "1"}] {
		t.Errorf("read %v", a.owners)
	}
}

// A table that a changed catalog drops is not one that was renamed.
func TestAdopt_ATableThatIsDroppedIsNoRenamedOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, thingsTable)
	r := w.start(t)
	r.reads(t, patience)
	for round, text := range []string{adoptedCatalog, testCatalog} {
		w.store.ask(catalogOf(t, text))
		w.store.wait(t, "adoption", func() bool { return len(w.store.adopted) > round })
		w.exec(t, fmt.Sprintf("INSERT INTO things VALUES (%d, 1)", round))
		w.settle(t)
	}
	for _, c := range w.store.stored() {
		if c.Relation != nil && c.Relation.Name == "things" && (c.Relation.Unknown != "" || c.Relation.Former != schemas.TableName{}) {
			t.Errorf("a change of things is unknown: %s, formerly %s", c.Relation.Unknown, c.Relation.Former)
		}
	}
}

// A try that fails leaves the former catalog in force, and is made again.
func TestAdopt_StartsOverAfterAnyInterruption(t *testing.T) {
	t.Parallel()
	w := newWorld(t, thingsTable)
	all := w.writeThings(t, 2)
	var tries atomic.Int32
	w.store.filling = func() error {
		if tries.Add(1) < 3 {
			return errors.New("the store is away")
		}
		return nil
	}
	r := w.start(t)
	r.reads(t, patience)
	w.store.ask(catalogOf(t, adoptedCatalog))
	w.store.wait(t, "adoption", func() bool { return len(w.store.adopted) == 1 })
	all.stop()
	w.settle(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	a := w.store.adopted[0]
	wantThings(t, a, w.store.stored()[:a.before])
	wantAllRows(t, w, w.store.stored())
	if notes := w.store.notes; !slices.ContainsFunc(notes, func(note string) bool { return strings.Contains(note, "the store is away") }) {
		t.Errorf("notes: %q", notes)
	}
}

// Tables of the new catalog that the publication lacks are waited for.
func TestAdopt_WaitsForThePublication(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), thingsTable)
	w.exec(t, "CREATE PUBLICATION walhook FOR TABLE users, items, notes")
	w.setup(t)
	r := w.start(t)
	r.reads(t, patience)
	w.store.ask(catalogOf(t, adoptedCatalog))
	w.store.wait(t, "a note", func() bool { return len(w.store.notes) > 0 && strings.Contains(w.store.notes[0], "public.things") })
	w.exec(t, "ALTER PUBLICATION walhook ADD TABLE things")
	w.store.wait(t, "adoption", func() bool { return len(w.store.adopted) == 1 })
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'n')", "INSERT INTO things VALUES (1, 1)")
	w.settle(t)
	wantLines(t, w.lines(), []string{"insert public.items new(id*=1 user_id=7 name=n)", "insert public.things new(id*=1 item_id=1)"})
}

// Fields alone need no rows: the catalog takes effect where the reader is.
func TestAdopt_OfFieldsAloneReadsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	open := w.Connect(t)
	execOn(t, open, "BEGIN", "INSERT INTO items VALUES (1, 1, 'n')")
	r := w.start(t)
	r.reads(t, patience)
	w.store.ask(catalogOf(t, strings.Replace(testCatalog, "[id, user_id, name]", "[id, user_id]", 1)))
	w.store.wait(t, "adoption", func() bool { return len(w.store.adopted) == 1 })
	if a := w.store.adopted[0]; a.point != 0 || len(a.owners)+len(a.accounts) > 0 {
		t.Errorf("read %+v", a)
	}
	execOn(t, open, "COMMIT")
	w.settle(t)
	wantLines(t, w.lines(), []string{"insert public.items new(id*=1 user_id=1 name=n)"})
}

var _ Catalogs = (*recorder)(nil)

var _ catalog.SnapshotSink = (*recorderSink)(nil)
