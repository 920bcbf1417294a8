package outbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// replayModel knows of each event its place among the originals, and what became of its rows.
type replayModel struct {
	*feed
	t        *testing.T
	session  *Session
	endpoint int64
	random   *rand.Rand
	place    map[string]int // by webhook-id
	settled  map[int64]bool // rows of the log
	version  int
}

type modelRow struct {
	id        int64
	webhookID string
	record    string
	replayed  bool
}

func (m *replayModel) rows(after int64) (list []modelRow) {
	m.t.Helper()
	rows, err := m.conn.Query(m.t.Context(), "SELECT id, webhook_id, record, replayed FROM walhook.event WHERE endpoint = $1 AND id > $2 ORDER BY id", m.endpoint, after)
	if err != nil {
		m.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r modelRow
		if err := rows.Scan(&r.id, &r.webhookID, &r.record, &r.replayed); err != nil {
			m.t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

func (m *replayModel) commitSome() {
	var last int64
	if rows := m.rows(0); len(rows) > 0 {
		last = rows[len(rows)-1].id
	}
	for range 1 + m.random.IntN(4) {
		m.version++
		id := 1 + m.random.IntN(3)
		m.commit(m.t, dids.Update(row(id, 7, "before"), row(id, 7, fmt.Sprint("v", m.version))))
	}
	for _, r := range m.rows(last) {
		m.place[r.webhookID] = len(m.place)
	}
}

// settleSome settles what waits; some of it goes on waiting, and some dies.
func (m *replayModel) settleSome() {
	for _, r := range m.rows(0) {
		if m.settled[r.id] || m.random.IntN(8) == 0 {
			continue
		}
		m.settled[r.id] = true
		e := Event{ID: r.id, Endpoint: m.endpoint, Revision: 1, Record: r.record}
		if m.random.IntN(4) == 0 {
			m.settle(m.t, m.session, dead(e))
		} else {
			m.settle(m.t, m.session, delivered(e))
		}
	}
}

// dropOldest ends the retention of the oldest rows up to one: what is undelivered becomes a dead letter.
func (m *replayModel) dropOldest(upto int64) {
	rows := m.rows(0)
	rows = slices.DeleteFunc(rows, func(r modelRow) bool { return r.id > upto })
	if len(rows) < 2 {
		return
	}
	cut := rows[m.random.IntN(len(rows))].id
	for _, r := range rows {
		if r.id >= cut {
			break
		}
		if !m.settled[r.id] {
			m.settled[r.id] = true
			m.settle(m.t, m.session, dead(Event{ID: r.id, Endpoint: m.endpoint, Revision: 1, Record: r.record}))
		}
	}
	m.exec(m.t, "DELETE FROM walhook.event WHERE id < $1", cut)
}

// sendable lists the events that a replay sends now: in the oracle's words, those that are kept
// and of which the newest row is delivered or dead.
func (m *replayModel) sendable() map[string]bool {
	newest := map[string]int64{}
	for _, r := range m.rows(0) {
		newest[r.webhookID] = r.id
	}
	can := map[string]bool{}
	for webhookID, id := range newest {
		can[webhookID] = m.settled[id]
	}
	for _, webhookID := range all[string](m.t, m.world, "SELECT webhook_id FROM walhook.dead_letter WHERE endpoint = $1", m.endpoint) {
		can[webhookID] = true
	}
	return can
}

// replaySome makes one replay in steps, with everything else going on between them.
func (m *replayModel) replaySome(round int) {
	t := m.t
	r := request{Endpoint: m.endpoint, Rate: []float64{1, 2, 10_000}[m.random.IntN(3)], Since: time.Unix(1, 0)}
	can := m.sendable()
	if m.random.IntN(2) == 0 {
		for webhookID := range can {
			if m.random.IntN(2) == 0 {
				r.WebhookIDs = append(r.WebhookIDs, webhookID)
			}
		}
		m.random.Shuffle(len(r.WebhookIDs), func(i, j int) {
			r.WebhookIDs[i], r.WebhookIDs[j] = r.WebhookIDs[j], r.WebhookIDs[i]
		})
	}
	if r.WebhookIDs != nil {
		r.Since = time.Time{}
	}
	want := map[string]bool{}
	for webhookID, ok := range can {
		if ok && (r.WebhookIDs == nil || slices.Contains(r.WebhookIDs, webhookID)) {
			want[webhookID] = true
		}
	}
	start := m.publisher.view.NextID - 1
	asked := m.ask(t, r)
	if asked.Total != int64(len(want)) {
		t.Fatalf("round %d: a total of %d, want %d", round, asked.Total, len(want))
	}
	dropped := false
	for step := 0; m.request(t, asked.ID).DoneAt.IsZero(); step++ {
		if step > 500 {
			t.Fatalf("round %d: not done: %+v", round, m.request(t, asked.ID))
		}
		m.exec(t, "UPDATE walhook.request SET next_at = now()")
		if _, err := m.publisher.replayStep(t.Context(), asked.ID); err != nil {
			t.Fatal(err)
		}
		switch m.random.IntN(8) {
		case 0:
			m.restart(t)
		case 1:
			m.commitSome()
		case 2:
			m.settleSome()
		case 3:
			if m.random.IntN(4) == 0 && !dropped {
				dropped = true
				before := m.sendable()
				m.dropOldest(start) // a copy stays for the whole retention
				for webhookID := range before {
					if _, kept := m.sendable()[webhookID]; !kept {
						delete(want, webhookID)
					}
				}
			}
		}
	}
	last := map[string]int{}
	sent := map[string]bool{}
	var lines []string
	for _, c := range m.rows(start) {
		if !c.replayed {
			continue
		}
		place := m.place[c.webhookID]
		lines = append(lines, fmt.Sprintf("%s:%d", c.record, place))
		if before, ok := last[c.record]; ok && before >= place {
			t.Fatalf("round %d, by ids %v: out of order: %v", round, r.WebhookIDs != nil, lines)
		}
		last[c.record], sent[c.webhookID] = place, true
	}
	for webhookID := range want {
		if !sent[webhookID] && !dropped {
			t.Fatalf("round %d, by ids %v: event %d is not sent again; sent %v", round, r.WebhookIDs != nil, m.place[webhookID], lines)
		}
	}
}

// Whatever replays there were before, and whatever goes on beside it, a replay has the events of
// a record in the order of their commits, each once.
func TestReplay_KeepsTheOrderOfTheOriginals(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			f := newFeed(t)
			f.commit(t, account(7))
			f.forget(t)
			m := &replayModel{feed: f, t: t, random: rand.New(rand.NewPCG(seed, 1)), place: map[string]int{}, settled: map[int64]bool{}}
			m.endpoint = one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '7'")
			m.session, _ = f.join(t)
			for round := range 15 {
				for range 2 {
					m.commitSome()
					m.settleSome()
				}
				if m.random.IntN(4) == 0 {
					m.dropOldest(m.publisher.view.NextID)
				}
				m.replaySome(round)
				m.settleSome()
			}
		})
	}
}

// A replay keeps its order over chunks and over the death of the publisher, also where earlier
// replays left the log in another order, and where retention has dropped the originals.
func TestReplay_KeepsTheOrderOfTheOriginalsOverChunks(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprintf("originals dropped %v", gone), func(t *testing.T) {
			f := newFeed(t)
			f.commit(t, account(7))
			f.forget(t)
			endpoint := one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '7'")
			const events = 700
			// The originals, and the copies of all in the reverse order.
			f.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body, replayed)
				SELECT CASE WHEN replayed THEN 2000 - n ELSE n END + 100, $1::bigint, 1, 'dids:1', format('evt_%s_1', lpad(to_hex(n), 16, '0')), 'dids', 'update', now(), now(), '{}', replayed
				FROM generate_series(1, $2::int) n, (VALUES (false), (true)) v(replayed)`, endpoint, events)
			f.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
				SELECT now(), endpoint, id, 1, 1, '1 ms', 200, 'delivered', '2xx', '' FROM walhook.event`)
			if gone {
				f.exec(t, "DELETE FROM walhook.event WHERE NOT replayed")
			}
			f.exec(t, "UPDATE walhook.position SET next_event_id = 5000")
			f.takeOver(t)
			r := f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1, 0)})
			for step := 0; f.request(t, r.ID).DoneAt.IsZero(); step++ {
				if step > 20 {
					t.Fatalf("not done: %+v", f.request(t, r.ID))
				}
				if f.request(t, r.ID).Sent < events {
					f.restart(t)
				}
				if _, err := f.publisher.replayStep(t.Context(), r.ID); err != nil {
					t.Fatal(err)
				}
			}
			got := all[string](t, f.world, "SELECT webhook_id FROM walhook.event WHERE id >= 5000 ORDER BY id")
			if len(got) != events || r.Total != events || !slices.IsSorted(got) {
				t.Errorf("%d of %d events sent again, in order %v", len(got), r.Total, slices.IsSorted(got))
			}
		})
	}
}

func TestOrderGone_ReadsThePlaceOfTheCommit(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	want := []string{"evt_00000000000000FF_2", "evt_00000000000000FF_10", "evt_00000000000000FF_10b", "sync_3_9", "sync_3_10",
		"evt_0000000000000100_1", "evt_00000000000001A0_1", "day_2026-01-01"}
	var events []placed
	for i, id := range want {
		e := placed{webhookID: id, committedAt: at.Add(time.Duration(i) * time.Second), row: int64(100 - i)}
		if id == "evt_00000000000001A0_1" {
			e.committedAt = at // the source's clock was set back
		}
		events = append(events, e)
	}
	events[4].committedAt = events[3].committedAt
	slices.Reverse(events)
	if got := idsOf(orderGone(events)); !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}
