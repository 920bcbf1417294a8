package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// toldRows are the events that rows of the tables of results and events made, in the order
// of the log, without the commits in the ids of those that came by the stream.
func (w *gapWorld) toldRows(t *testing.T) (lines []string) {
	t.Helper()
	rows, err := w.box.Query(t.Context(), `
		SELECT CASE WHEN e.webhook_id LIKE 'gap%' THEN e.webhook_id ELSE 'evt' END, p.account, coalesce(b::json ->> 'verbose', b::json ->> 'call_id')
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint,
			convert_from(CASE WHEN e.body_of IS NULL THEN e.body ELSE (SELECT o.body FROM walhook.event o WHERE o.id = e.body_of) END, 'UTF8') AS b
		WHERE e.record LIKE 'result/%' OR e.record LIKE 'event/%' ORDER BY e.id`)
	if err != nil {
		t.Fatal(err)
	}
	var id, account, text string
	if _, err := pgx.ForEachRow(rows, []any{&id, &account, &text}, func() error { lines = append(lines, id+" "+account+" "+text); return nil }); err != nil {
		t.Fatal(err)
	}
	return lines
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("told:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// rowCounts is what the newest gap's row says of rows: results, events, all, whether it is ended.
func (w *gapWorld) rowCounts(t *testing.T) string {
	t.Helper()
	return w.text(t, w.box, "SELECT format('%s %s of %s %s', results, events, missed, reconciled_at IS NOT NULL) FROM walhook.gap ORDER BY id DESC LIMIT 1")
}

func (w *gapWorld) webhook(t *testing.T, account, hook string) {
	t.Helper()
	if _, err := w.box.Exec(t.Context(), `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, hook)
		VALUES ($1, $2, 'https://example.com/w', 'active', 'whsec_b2xk', $2)`, account, hook); err != nil {
		t.Fatal(err)
	}
}

const (
	aResult = `INSERT INTO async_results VALUES (%d, %d, 'sms', 'update', 'ok', '%s')`
	anEvent = `INSERT INTO events VALUES (%d, 'channel_create', '{"call_id":"%s"}')`
)

func TestGapRows_TellsThoseOfTheGapOnceAndInOrder(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', 'https://example.com/8'), (9, 'nobody', NULL);
		INSERT INTO async_results VALUES (1, 7, 'sms', 'update', 'ok', 'at setup'), (2, 7, 'sms', 'update', 'ok', 'at setup too');
		INSERT INTO events VALUES (7, 'channel_create', '{"call_id":"at setup"}')`)
	w.webhook(t, "7", "channel_create")
	w.read(t, true) // the webhook is known
	long := w.db.Connect(t)
	for _, sql := range []string{"BEGIN", fmt.Sprintf(aResult, 5, 7, "long"), fmt.Sprintf(anEvent, 7, "long")} {
		if _, err := long.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	w.exec(t, fmt.Sprintf(aResult, 10, 7, "before"), fmt.Sprintf(aResult, 11, 8, "before"), fmt.Sprintf(anEvent, 7, "before"), fmt.Sprintf(anEvent, 7, "twice"),
		fmt.Sprintf(aResult, 12, 7, "deleted before"), "DELETE FROM async_results WHERE id = 12")
	w.read(t, false)
	before := []string{"evt 7 before", "evt 8 before", "evt 7 before", "evt 7 twice", "evt 7 deleted before"}
	wantLines(t, w.toldRows(t), before...)
	w.loseSlot(t)
	w.exec(t,
		fmt.Sprintf(aResult, 22, 7, "first by commit"), fmt.Sprintf(aResult, 21, 7, "second by commit"), fmt.Sprintf(aResult, 23, 8, "of eight"),
		fmt.Sprintf(aResult, 24, 9, "of nobody"), fmt.Sprintf(aResult, 25, 7, "gone"), "DELETE FROM async_results WHERE id = 25",
		fmt.Sprintf(aResult, 12, 7, "a key again"),
		"INSERT INTO async_results VALUES (26, 7, 'items', 'update', 'ok', 'a reserved name')",
		"INSERT INTO async_results VALUES (27, 7, 'no name', 'update', 'ok', 'malformed')",
		fmt.Sprintf(anEvent, 7, "one"), fmt.Sprintf(anEvent, 7, "two"), fmt.Sprintf(anEvent, 8, "of eight, who has no such webhook"),
		fmt.Sprintf(anEvent, 7, "twice"),
	)
	if _, err := long.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	w.exec(t, // rows that are new by their age, and were told
		"UPDATE async_results SET seen = true WHERE id IN (1, 10)", "VACUUM FULL async_results", "VACUUM FULL events",
		"BEGIN; "+fmt.Sprintf(aResult, 30, 7, "rolled back")+"; ROLLBACK")
	w.setup(t, source.Reconcile)
	gap := []string{
		"gap_1_1 7 first by commit", "gap_1_2 7 second by commit", "gap_1_3 8 of eight", "gap_1_4 7 a key again", "gap_1_6 7 long",
		"gap_1_7 7 one", "gap_1_8 7 two", "gap_1_10 7 twice", "gap_1_11 7 long",
	}
	wantLines(t, w.toldRows(t), append(before, gap...)...)
	if got := w.rowCounts(t); got != "5 4 of 11 t" {
		t.Errorf("the gap's row says %s", got)
	}
	if got := w.text(t, w.box, "SELECT note FROM walhook.gap"); !strings.Contains(got, "malformed rows that may be of the gap, in public.async_results: 1") {
		t.Errorf("the gap's row says %s", got)
	}

	// The next gap tells none of them again.
	w.exec(t, fmt.Sprintf(aResult, 40, 7, "after"), fmt.Sprintf(anEvent, 7, "after"))
	w.read(t, false)
	w.loseSlot(t)
	w.exec(t, "UPDATE async_results SET seen = true", fmt.Sprintf(aResult, 41, 7, "in the second gap"))
	w.setup(t, source.Reconcile)
	w.read(t, false)
	wantLines(t, w.toldRows(t), slices.Concat(before, gap, []string{"evt 7 after", "evt 7 after", "gap_2_1 7 in the second gap"})...)
}

func TestGapRows_InterruptedGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), "INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'); INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 10) n")
	w.webhook(t, "7", "channel_create")
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, "UPDATE items SET name = 'y'", "INSERT INTO async_results SELECT n, 7, 'sms', 'update', 'ok', n FROM generate_series(1, 1500) n",
		"INSERT INTO events SELECT 7, 'channel_create', json_build_object('call_id', n) FROM generate_series(1501, 2000) n")
	w.log = zap.NewNop()
	for _, refused := range []string{"gap%1500", "gap%15", "gap%1012"} {
		if _, err := w.box.Exec(t.Context(), `CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no more''; END';
			CREATE TRIGGER refuse BEFORE INSERT ON walhook.event FOR EACH ROW WHEN (NEW.webhook_id LIKE '`+refused+`') EXECUTE FUNCTION refuse()`, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		if err := w.trySetup(t.Context(), t, source.Reconcile); err == nil {
			t.Fatal("setup was not interrupted")
		}
		if _, err := w.box.Exec(t.Context(), "DROP TRIGGER refuse ON walhook.event"); err != nil {
			t.Fatal(err)
		}
	}
	w.exec(t, fmt.Sprintf(aResult, 3000, 7, "newer"))
	w.read(t, false)
	var want []string
	for n := range 2000 {
		want = append(want, fmt.Sprintf("gap_1_%d 7 %d", n+11, n+1))
	}
	wantLines(t, w.toldRows(t), append(want, "evt 7 newer")...)
	if got := w.text(t, w.box, "SELECT format('%s %s %s', (SELECT sum(results) FROM walhook.gap), (SELECT sum(events) FROM walhook.gap), (SELECT sum(updates) FROM walhook.gap))"); got != "1500 500 10" {
		t.Errorf("the gaps' rows say %s", got)
	}
}

func TestGapRows_AnotherClusterSendsNoneAndSaysSo(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), "INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'); INSERT INTO async_results VALUES (1, 7, 'sms', 'update', 'ok', 'at setup')")
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, fmt.Sprintf(aResult, 2, 7, "in the gap"))
	if _, err := w.box.Exec(t.Context(), "UPDATE walhook.source SET system_id = 'another'"); err != nil {
		t.Fatal(err)
	}
	w.setup(t, source.Reconcile)
	wantLines(t, w.toldRows(t))
	if got := w.text(t, w.box, "SELECT note FROM walhook.gap"); !strings.Contains(got, "none of them is sent") {
		t.Errorf("the gap's row says %s", got)
	}

	// From then on it is known which rows are there.
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, "UPDATE async_results SET seen = true", fmt.Sprintf(aResult, 3, 7, "in the next gap"))
	w.setup(t, source.Reconcile)
	wantLines(t, w.toldRows(t), "gap_2_1 7 in the next gap")
}

func TestGapRows_NoReconcileSendsNone(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), "INSERT INTO users VALUES (7, 'seven', 'https://example.com/7')")
	w.loseSlot(t)
	w.exec(t, fmt.Sprintf(aResult, 1, 7, "in the gap"))
	w.setup(t, source.Forget)
	w.loseSlot(t)
	w.exec(t, "UPDATE async_results SET seen = true", fmt.Sprintf(aResult, 2, 7, "in the next gap"))
	w.setup(t, source.Reconcile)
	wantLines(t, w.toldRows(t), "gap_2_1 7 in the next gap")
}

// Random histories before and in several gaps: every row that was there at the end of a
// gap, or that the stream had, is told once.
func TestGapRows_RandomHistories(t *testing.T) {
	t.Parallel()
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 2))
	w := newGapWorld(t, pgtest.Database(t), "INSERT INTO users VALUES (7, 'seven', 'https://example.com/7')")
	w.webhook(t, "7", "channel_create")
	w.read(t, true)
	next, want := 0, map[string]int{}
	history := func(steps int, inGap bool) {
		there := map[string]int{} // inserted now, and not deleted since
		for range steps {
			next++
			some := 1 + random.IntN(next)
			switch random.IntN(7) {
			case 0, 1:
				w.exec(t, fmt.Sprintf(aResult, next, 7, fmt.Sprint("r", next)))
				there[fmt.Sprint("r", next)]++
			case 2:
				name := fmt.Sprint("e", random.IntN(5)) // equal rows of a table without a key
				w.exec(t, fmt.Sprintf(anEvent, 7, name))
				there[name]++
			case 3:
				w.exec(t, fmt.Sprintf("UPDATE async_results SET seen = true WHERE id > %d", some))
			case 4:
				w.exec(t, fmt.Sprintf("DELETE FROM async_results WHERE id = %d", some))
				if inGap {
					delete(there, fmt.Sprint("r", some))
				}
			case 5:
				w.exec(t, []string{"VACUUM FULL async_results", "VACUUM (FREEZE) events", "VACUUM FULL events"}[random.IntN(3)])
			case 6:
				w.exec(t, fmt.Sprintf("BEGIN; SAVEPOINT a; "+aResult+"; RELEASE a; COMMIT", next, 7, fmt.Sprint("r", next)))
				there[fmt.Sprint("r", next)]++
			}
		}
		for name, n := range there {
			want[name] += n
		}
	}
	for range 5 {
		history(15, false)
		w.read(t, random.IntN(2) == 0)
		w.loseSlot(t)
		history(20, true)
		w.setup(t, source.Reconcile)
	}
	history(5, false)
	w.read(t, false)
	got := map[string]int{}
	for _, line := range w.toldRows(t) {
		got[strings.Fields(line)[2]]++
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s was told %d times, want %d", name, got[name], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d names were told, want %d", len(got), len(want))
	}
}
