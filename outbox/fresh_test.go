package outbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// allHeld are all shards.
func allHeld() (shards []int) {
	for s := range Shards {
		shards = append(shards, s)
	}
	return shards
}

// shown is an event as a sender sees it.
func shown(e *Event) string {
	return fmt.Sprintf("%d %d %d %s %s %s %s %s %s %q %d %s", e.ID, e.Endpoint, e.Revision, e.Record, e.WebhookID, e.Schema, e.Type,
		e.CommittedAt.UTC(), e.AppendedAt.UTC(), e.Format, e.Attempts, e.Body)
}

// readOn reads all that follows an id, as a sender does that looks again.
func readOn(t *testing.T, s *Session, after int64, q TailQuery) (lines []string, upto int64) {
	t.Helper()
	for q.After = after; ; {
		stretch, err := s.Tail(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for i := range stretch.Events {
			if e := &stretch.Events[i]; e.ID <= q.After || e.ID > stretch.Upto {
				t.Fatalf("event %d in a stretch from %d to %d", e.ID, q.After, stretch.Upto)
			}
			lines = append(lines, shown(&stretch.Events[i]))
		}
		if !stretch.More && stretch.Upto == q.After {
			return lines, q.After
		}
		q.After = stretch.Upto
	}
}

// A sender beside the publisher reads, mostly from memory, what one in another
// process reads from the log: whatever the publisher appends, whoever publishes in
// between, and however far the sender is behind.
func TestFresh_ASenderBesideThePublisherReadsWhatTheLogHolds(t *testing.T) {
	f := newFeed(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	near, _ := f.join(t)
	beside := func() *world {
		store, err := Open(t.Context(), Config{URL: f.db.URL}, zap.NewNop(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		w := *f.world
		w.store = store
		return &w
	}
	far, _ := beside().join(t)
	const accounts = 40
	for n := range accounts {
		f.commit(t, account(100+n))
	}
	elsewhere := &feed{world: beside(), commitLSN: f.commitLSN, catalog: smallCatalog}
	elsewhere.publisher = newPublisher(t, elsewhere.world)
	change := func() schemas.Change {
		text := strings.Repeat("x", []int{0, 10, 3000}[random.IntN(3)])
		return dids.Insert(random.IntN(1_000_000), 100+random.IntN(accounts), text)
	}
	few := func() []schemas.Change {
		changes := make([]schemas.Change, 1+random.IntN(60))
		for i := range changes {
			changes[i] = change()
		}
		return changes
	}
	after, memory, total := int64(0), 0, 0
	const rounds, least = 300, 500 // of events from memory, however few a seed has of them at first
	for round := 0; round < rounds || memory < least && round < 10*rounds; round++ {
		switch n := random.IntN(20); {
		case n < 14:
			f.commit(t, few()...)
		case n == 14: // another process publishes for a while
			elsewhere.commitLSN = f.commitLSN
			elsewhere.takeOver(t)
			elsewhere.commit(t, few()...)
			if err := f.publisher.Append(t.Context(), batch(f.tx(change()))); !errors.Is(err, ErrFenced) {
				t.Fatalf("an append beside another publisher: %v", err)
			}
			f.commitLSN = elsewhere.commitLSN
			f.takeOver(t)
		case n == 15:
			f.takeOver(t)
		case n == 16: // what a replay does to the ids
			f.publisher.view.NextID += replayChunk
			f.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, format, body, replayed)
				SELECT $1, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, format, body, true
				FROM walhook.event WHERE body_of IS NULL ORDER BY id DESC LIMIT 1`, f.publisher.view.NextID-1)
			row := &f.publisher.position
			if err := f.conn.QueryRow(t.Context(), keepPositionSQL, row.first(f.publisher.epoch, f.publisher.view.NextID)...).Scan(&row.id, &row.at); err != nil {
				t.Fatal(err)
			}
		case n == 17:
			f.publisher.partition = time.Time{} // rotate moves on to the next partition
		}
		if random.IntN(3) == 0 {
			continue // the sender falls behind
		}
		if random.IntN(30) == 0 {
			after = 0 // or begins anew
		}
		q := TailQuery{Shards: allHeld(), Limit: 1 + random.IntN(100), MaxBytes: 1 + random.IntN(20_000)}
		if random.IntN(3) == 0 {
			q.Shards = []int{1, 5, 8, 30}
		}
		probe := q
		if probe.After = after; after > 0 {
			if stretch, ok := f.store.fresh.tail(f.publisher.timeline.token, &probe); ok {
				memory += len(stretch.Events)
			}
		}
		want, upto := readOn(t, far, after, q)
		got, reached := readOn(t, near, after, q)
		if !slices.Equal(got, want) || reached != upto {
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || got[i] != want[i] {
					t.Fatalf("after %d, of %d and %d the first that differs: %.300s\nwant %.300s\nup to %d, want %d", after, len(got), len(want), strings.Join(rest(got, i), "\n"), strings.Join(rest(want, i), "\n"), reached, upto)
				}
			}
			t.Fatalf("after %d: up to %d, want %d", after, reached, upto)
		}
		after, total = reached, total+len(want)
	}
	// Not a share of the total: how much a sender reads again depends on the seed.
	if memory < least {
		t.Errorf("%d of %d events came from memory", memory, total)
	}
}

// What is not committed is not handed on, whatever became of the transaction.
func TestFresh_NothingIsHandedOnBeforeItIsCommitted(t *testing.T) {
	f := newFeedAlone(t)
	s, _ := f.join(t)
	f.commit(t, account(7))
	f.commit(t, dids.Insert(1, 7, "one"))
	_, after := readOn(t, s, 0, TailQuery{Shards: allHeld(), Limit: 100, MaxBytes: 1 << 20})
	f.commit(t, dids.Insert(2, 7, "two")) // from here on the sender keeps up
	f.exec(t, `CREATE FUNCTION walhook.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused' USING ERRCODE = '40001'; END $$`)
	f.exec(t, `CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON walhook.position DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION walhook.refuse()`)
	if err := f.publisher.Append(t.Context(), batch(f.tx(dids.Insert(3, 7, "three")))); err == nil {
		t.Fatal("the COMMIT was not refused")
	}
	got, upto := readOn(t, s, after, TailQuery{Shards: allHeld(), Limit: 100, MaxBytes: 1 << 20})
	if len(got) != 1 || !strings.Contains(got[0], "two") || upto != after+1 {
		t.Errorf("read %q up to %d", got, upto)
	}
	f.exec(t, `DROP TRIGGER refuse ON walhook.position`)
	f.takeOver(t)
	f.commit(t, dids.Insert(3, 7, "three"))
	if got, _ = readOn(t, s, upto, TailQuery{Shards: allHeld(), Limit: 100, MaxBytes: 1 << 20}); len(got) != 1 || !strings.Contains(got[0], "three") {
		t.Errorf("read %q", got)
	}
}

// What is kept has a bound in events and in bytes, and the memory of the plan that it
// came from is free again.
func TestFresh_IsBounded(t *testing.T) {
	planOf := plans(t)
	f := &fresh{}
	f.want()
	next := int64(1)
	for range 100 {
		f.asked = next
		p := planOf(next, slices.Repeat([]int{1000}, 1000)...)
		f.add(next, p)
		next = p.NextID()
		held := 0
		for i := range f.events {
			held += len(f.events[i].Body)
		}
		if held != f.bytes || f.bytes > freshBytes || len(f.events) > freshEvents || f.upto != next-1 || len(f.events) > 0 && f.events[0].ID != f.after+1 {
			t.Fatalf("%d events, %d bytes (%d counted), after %d up to %d, next %d", len(f.events), held, f.bytes, f.after, f.upto, next)
		}
		p.Events[0].Body[0] = 1
		if last := f.events[len(f.events)-1]; last.Body[0] != 0 {
			t.Fatal("the plan's memory is kept")
		}
	}
}

// plans makes plans of events for one endpoint, with bodies of given sizes.
func plans(t testing.TB) func(from int64, sizes ...int) *route.Plan {
	t.Helper()
	small, err := catalog.Parse([]byte(smallCatalog))
	if err != nil {
		t.Fatal(err)
	}
	v := route.NewView(small)
	v.MaxEventBytes = 4 << 20
	v.Endpoints["7"] = &route.Endpoint{ID: 1, Revision: 1}
	return func(from int64, sizes ...int) *route.Plan {
		v.NextID = from
		rows := make([]route.InboxRow, len(sizes))
		for i, size := range sizes {
			rows[i] = route.InboxRow{Account: "7", Event: route.Event{Body: make([]byte, size)}}
		}
		return route.RouteInbox(v, rows)
	}
}

// An event that waits in a lane keeps its own body in memory, and not those of the events
// that were appended with it.
func TestFresh_AnEventHoldsNoOthersBodies(t *testing.T) {
	planOf := plans(t)
	f := &fresh{}
	f.want()
	var waiting []Event
	next := int64(1)
	before := heapInUse()
	for range 100 {
		f.asked = next
		plan := planOf(next, 80, 2<<20)
		f.add(next, plan)
		stretch, ok := f.tail("", &TailQuery{After: next - 1, Shards: allHeld(), Limit: 1, MaxBytes: 1})
		if !ok || len(stretch.Events) != 1 || len(stretch.Events[0].Body) != 80 {
			t.Fatalf("%v: %d events", ok, len(stretch.Events))
		}
		waiting = append(waiting, stretch.Events...)
		next = plan.NextID()
	}
	if held := heapInUse() - before; held > 20<<20 {
		t.Errorf("%d events of 80 bytes, and at most %d bytes here, hold %d MiB", len(waiting), freshBytes, held>>20)
	}
	runtime.KeepAlive(waiting)
}

func heapInUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// At its bound, an append drops as many events as it brings, and moves the others seldom.
func TestFresh_MovesLittleAtItsBound(t *testing.T) {
	planOf := plans(t)
	f := &fresh{}
	f.want()
	next, moved := int64(1), 0
	const more = 2 * freshEvents
	for n := range freshEvents/100 + more {
		f.asked = next
		plan := planOf(next, 10)
		if n < freshEvents/100 {
			plan = planOf(next, make([]int, 100)...)
		}
		var newest *Event
		if n := len(f.events); n > 0 {
			newest = &f.events[n-1]
		}
		f.add(next, plan)
		if n := len(f.events); n == freshEvents && newest != nil && newest != &f.events[n-2] {
			moved++
		}
		next = plan.NextID()
	}
	if moved > more/1000 {
		t.Errorf("all events were moved by %d of %d appends", moved, more)
	}
}

// What an append of two events costs here: below the bound, and at it.
func BenchmarkFresh(b *testing.B) {
	planOf := plans(b)
	for _, held := range []int{100, freshEvents} {
		b.Run(fmt.Sprintf("%d_held", held), func(b *testing.B) {
			f := &fresh{}
			f.want()
			plan := planOf(1, make([]int, held)...)
			f.add(1, plan)
			next := plan.NextID()
			for b.Loop() {
				f.asked = next
				plan := planOf(next, 200, 200)
				f.add(next, plan)
				next = plan.NextID()
				if held < freshEvents && len(f.events) > 2*held {
					f.reset(next - 1)
				}
			}
		})
	}
}
