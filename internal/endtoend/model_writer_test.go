package endtoend

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const modelTables = `
CREATE TABLE account (id bigint PRIMARY KEY, url text);
CREATE SEQUENCE tick CACHE 1;
CREATE TABLE item (id bigint PRIMARY KEY, account bigint NOT NULL, n bigint NOT NULL, note text);
CREATE TABLE part (id uuid PRIMARY KEY, item bigint NOT NULL, n bigint NOT NULL);
CREATE INDEX part_item ON part (item);
CREATE TABLE place (area integer NOT NULL, num bigint NOT NULL, account bigint NOT NULL, holder bigint NOT NULL, n bigint NOT NULL, PRIMARY KEY (area, num));
CREATE TABLE extra (id text PRIMARY KEY, account bigint NOT NULL, n bigint NOT NULL)`

// The two catalogs between which the model changes. extras begin and end, items gain and
// lose fields, and places have another owner.
var modelCatalogs = [2]string{`
account: {table: public.account, id: id, url: url}
schemas:
  items: {table: public.item, owner: account, fields: [id, account, n]}
  parts: {table: public.part, owner: {column: item, schema: items}, fields: [id, item, n]}
  places: {table: public.place, owner: account, fields: [area, num, account, n]}
`, `
account: {table: public.account, id: id, url: url}
schemas:
  items: {table: public.item, owner: account, fields: [id, n, note]}
  parts: {table: public.part, owner: {column: item, schema: items}, fields: [id, item, n]}
  places: {table: public.place, owner: holder, fields: [area, num, n]}
  extras: {table: public.extra, owner: account, fields: [id, account, n]}
`}

// modelWriter changes rows that no other writer changes. Every change of a row raises its
// n, which comes from one sequence.
type modelWriter struct {
	number   int64
	accounts *atomic.Int64 // grows
	random   *rand.Rand
	url      string
	written  *atomic.Int64 // transactions of all writers
	items    []int64
	parts    map[int64]int // by item
	places   [][2]int64
	extras   []string
	next     int64
}

const modelRowsMost = 150 // of each table, per writer

// run writes until ctx ends.
func (w *modelWriter) run(t *testing.T, ctx context.Context) error {
	conn, err := pgx.Connect(t.Context(), w.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		if err := w.transaction(t.Context(), conn); err != nil {
			return err
		}
		w.written.Add(1)
		time.Sleep(time.Duration(2+w.random.IntN(10)) * time.Millisecond) // for others, who have to keep up
	}
	return nil
}

// transaction makes one to three changes; some transactions are rolled back.
func (w *modelWriter) transaction(ctx context.Context, conn *pgx.Conn) error {
	before := *w
	before.items, before.places, before.extras = slices.Clone(w.items), slices.Clone(w.places), slices.Clone(w.extras)
	before.parts = maps.Clone(w.parts)
	statements, end := []string{"BEGIN"}, "COMMIT"
	for range 1 + w.random.IntN(3) {
		statements = append(statements, w.change())
	}
	if w.random.IntN(20) == 0 {
		next := w.next
		*w, end = before, "ROLLBACK"
		w.next = next
	}
	sql := strings.Join(append(statements, end), "; ")
	if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func (w *modelWriter) account() int64 { return w.random.Int64N(w.accounts.Load()) + 1 }

// fresh is a number that this writer has not used.
func (w *modelWriter) fresh() int64 {
	w.next++
	return w.number*1_000_000 + w.next
}

func (w *modelWriter) change() string {
	switch w.random.IntN(6) {
	case 0, 1, 2:
		return w.changeItem()
	case 3, 4:
		return w.changePlace()
	default:
		return w.changeExtra()
	}
}

func (w *modelWriter) changeItem() string {
	if len(w.items) == 0 || len(w.items) < modelRowsMost && w.random.IntN(5) == 0 {
		id := w.fresh()
		w.items = append(w.items, id)
		sql := fmt.Sprintf("INSERT INTO item VALUES (%d, %d, nextval('tick'), 'new')", id, w.account())
		if w.random.IntN(2) == 0 {
			sql += "; " + w.addPart(id)
		}
		return sql
	}
	at := w.random.IntN(len(w.items))
	id := w.items[at]
	// A part is sent to the account of its item when it changes itself.
	touchParts := fmt.Sprintf("; UPDATE part SET n = nextval('tick') WHERE item = %d", id)
	switch w.random.IntN(8) {
	case 0:
		w.items = slices.Delete(w.items, at, at+1)
		delete(w.parts, id)
		return fmt.Sprintf("DELETE FROM part WHERE item = %d; DELETE FROM item WHERE id = %d", id, id)
	case 1:
		return fmt.Sprintf("UPDATE item SET account = %d, n = nextval('tick') WHERE id = %d", w.account(), id) + touchParts
	case 2:
		key := w.fresh()
		w.items[at] = key
		w.parts[key] = w.parts[id]
		delete(w.parts, id)
		return fmt.Sprintf("UPDATE item SET id = %d, n = nextval('tick') WHERE id = %d; UPDATE part SET item = %d, n = nextval('tick') WHERE item = %d", key, id, key, id)
	case 3:
		if w.parts[id] < 3 {
			return w.addPart(id)
		}
		w.parts[id] = 0
		return fmt.Sprintf("DELETE FROM part WHERE item = %d", id)
	case 4:
		return fmt.Sprintf("UPDATE item SET n = nextval('tick') WHERE id = %d", id) + touchParts
	default:
		return fmt.Sprintf("UPDATE item SET n = nextval('tick'), note = 'n%d' WHERE id = %d", w.random.IntN(100), id)
	}
}

func (w *modelWriter) addPart(item int64) string {
	w.parts[item]++
	return fmt.Sprintf("INSERT INTO part VALUES ('00000000-0000-4000-8000-%012d', %d, nextval('tick'))", w.fresh(), item)
}

func (w *modelWriter) changePlace() string {
	if len(w.places) == 0 || len(w.places) < modelRowsMost && w.random.IntN(5) == 0 {
		place := [2]int64{int64(w.random.IntN(5)), w.fresh()}
		w.places = append(w.places, place)
		return fmt.Sprintf("INSERT INTO place VALUES (%d, %d, %d, %d, nextval('tick'))", place[0], place[1], w.account(), w.account())
	}
	at := w.random.IntN(len(w.places))
	place := w.places[at]
	where := fmt.Sprintf(" WHERE area = %d AND num = %d", place[0], place[1])
	switch w.random.IntN(6) {
	case 0:
		w.places = slices.Delete(w.places, at, at+1)
		return "DELETE FROM place" + where
	case 1:
		owner := []string{"account", "holder"}[w.random.IntN(2)]
		return fmt.Sprintf("UPDATE place SET %s = %d, n = nextval('tick')", owner, w.account()) + where
	case 2:
		w.places[at][0] = (place[0] + 1) % 5
		return fmt.Sprintf("UPDATE place SET area = %d, n = nextval('tick')", w.places[at][0]) + where
	default:
		return "UPDATE place SET n = nextval('tick')" + where
	}
}

func (w *modelWriter) changeExtra() string {
	if len(w.extras) == 0 || len(w.extras) < modelRowsMost && w.random.IntN(4) == 0 {
		id := fmt.Sprintf("é%d", w.fresh())
		w.extras = append(w.extras, id)
		return fmt.Sprintf("INSERT INTO extra VALUES ('%s', %d, nextval('tick'))", id, w.account())
	}
	at := w.random.IntN(len(w.extras))
	id := w.extras[at]
	switch w.random.IntN(6) {
	case 0:
		w.extras = slices.Delete(w.extras, at, at+1)
		return fmt.Sprintf("DELETE FROM extra WHERE id = '%s'", id)
	case 1:
		return fmt.Sprintf("UPDATE extra SET account = %d, n = nextval('tick') WHERE id = '%s'", w.account(), id)
	default:
		return fmt.Sprintf("UPDATE extra SET n = nextval('tick') WHERE id = '%s'", id)
	}
}
