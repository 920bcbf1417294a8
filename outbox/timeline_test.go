package outbox

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// moveOn has the outbox be on another timeline than everybody has read, as after a failover.
func (w *world) moveOn(t *testing.T) {
	t.Helper()
	w.exec(t, "UPDATE walhook.timeline SET number = -number WHERE id = (SELECT max(id) FROM walhook.timeline)")
}

func TestTimeline_APublisherWritesOnNoOtherOneThanItHasRead(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(t *testing.T, f *feed) error{
		"changes": func(t *testing.T, f *feed) error {
			return f.publisher.Append(t.Context(), batch(f.tx(dids.Insert(3, 7, "313"))))
		},
		"the inbox": func(t *testing.T, f *feed) error {
			f.notice(t, "7", 1)
			_, err := f.publisher.appendInbox(t.Context())
			return err
		},
		"a replay": func(t *testing.T, f *feed) error {
			r := f.ask(t, request{Endpoint: f.idOf(t, "7"), WebhookIDs: all[string](t, f.world, "SELECT webhook_id FROM walhook.event WHERE id = 1")})
			_, err := f.publisher.replayStep(t.Context(), r.ID)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t)
			s, _ := f.join(t)
			f.commit(t, account(7))
			f.settle(t, s, delivered(Event{ID: 1, Endpoint: f.idOf(t, "7"), Revision: 1, Record: "users:7"}))
			f.commit(t, dids.Insert(1, 7, "311"))
			f.moveOn(t)
			before := f.stored(t)
			if err := write(t, f); !errors.Is(err, ErrMoved) {
				t.Errorf("got %v, want %v", err, ErrMoved)
			}
			if after := f.stored(t); !slices.Equal(after, before) {
				t.Errorf("events and positions are %v, were %v", after, before)
			}
			if f.publisher.live {
				t.Error("the publisher continues")
			}
			if got := f.takeOver(t); !got.OutboxMoved {
				t.Error("the position passes for one of this timeline")
			}
			f.commit(t, dids.Insert(5, 7, "315"))
			if f.takeOver(t).OutboxMoved {
				t.Error("the position of this timeline passes for one of another")
			}
		})
	}
}

// Not even a publisher that knows of no event that is lost gives its id to another one, nor
// does a later timeline on which nothing was appended.
func TestTimeline_IDsAreNotGivenAgain(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.moveOn(t)
	f.restart(t)
	f.commit(t, dids.Insert(1, 7, "311"))
	f.restart(t)
	f.commit(t, dids.Insert(2, 7, "312"))
	f.moveOn(t)
	f.restart(t)
	f.moveOn(t)
	f.restart(t)
	f.commit(t, dids.Insert(3, 7, "313"))
	want := []int64{1, 2 * eventPartitionSize, 2*eventPartitionSize + 1, 6 * eventPartitionSize}
	if got := all[int64](t, f.world, "SELECT id FROM walhook.event ORDER BY id"); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// An edit is lost, and another one raises the version of the webhooks to the same number.
func TestTimeline_AnEqualVersionOfWebhooksIsNotTheSame(t *testing.T) {
	f := hooks(t, 2)
	f.edit(t, "1", "schemas = '{e911}'")
	if got := f.notified(t, 1, 2); !slices.Equal(got, []string{"2"}) {
		t.Fatalf("notified %v", got)
	}
	// On the standby account 1's edit never was, and account 2 made one instead.
	f.exec(t, "UPDATE walhook.endpoint SET schemas = '{}', revision = revision - 1, changed_in = 0 WHERE account = '1'")
	f.exec(t, "UPDATE walhook.endpoint SET schemas = '{e911}', "+ChangedInSQL+", revision = revision + 1 WHERE account = '2'")
	f.moveOn(t)
	b := batch(f.tx(dids.Insert(1001, 1, "n"), dids.Insert(1002, 2, "n")))
	if err := f.publisher.Append(t.Context(), b); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v, want %v", err, ErrMoved)
	}
	f.takeOver(t)
	if got := f.notified(t, 1, 2); !slices.Equal(got, []string{"1"}) {
		t.Errorf("notified %v, want [1]", got)
	}
}

// What a sender has delivered stays delivered. Everything else that it knows, an endpoint's
// revision or how far it has read, belongs to the timeline that it joined on.
func TestTimeline_ASenderSettlesOnAnotherOneOnlyWhatItHasDelivered(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint(t, "7")
	one, two, three := w.event(t, 1, endpoint, "dids:1"), w.event(t, 2, endpoint, "dids:2"), w.event(t, 3, endpoint, "dids:3")
	s, _ := w.join(t)
	w.moveOn(t)
	for name, call := range map[string]func() error{
		"renew":     func() error { _, err := s.Renew(t.Context()); return err },
		"rebalance": func() error { _, _, err := s.Rebalance(t.Context()); return err },
		"watch":     func() error { _, _, err := s.EndpointsChanged(t.Context(), time.Now()); return err },
		"save":      func() error { return s.Save(t.Context(), nil, []Shard{{ID: ShardOf(endpoint), Tail: 3}}) },
		"release":   func() error { return s.Release(t.Context(), []Shard{{ID: ShardOf(endpoint), Tail: 3}}) },
	} {
		if err := call(); !errors.Is(err, ErrMoved) || errors.Is(err, ErrLeaseLost) {
			t.Errorf("%s: got %v, want %v", name, err, ErrMoved)
		}
	}
	if stretch, err := s.Tail(t.Context(), TailQuery{Shards: allHeld(), Limit: 10, MaxBytes: 1 << 20}); err != nil || len(stretch.Events) > 0 {
		t.Errorf("it reads %d events, %v", len(stretch.Events), err)
	}
	gone := delivered(three)
	gone.Disposition, gone.Disable = Dead, "410"
	w.settle(t, s, delivered(one), retried(two, time.Hour), gone)
	if got := all[int64](t, w, "SELECT event_id FROM walhook.attempt"); !slices.Equal(got, []int64{1}) {
		t.Errorf("attempts at %v are stored, want [1]", got)
	}
	if n := w.count(t, "retry") + w.count(t, "dead_letter") + w.count(t, "endpoint WHERE state <> 'active'"); n != 0 {
		t.Errorf("%d rows of what it cannot know", n)
	}
	if err := s.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, gained := w.join(t)
	if len(gained.Shards) != Shards || again.timeline == s.timeline {
		t.Errorf("it joined again with %d shards", len(gained.Shards))
	}
	if tail := one64(gained.Shards, ShardOf(endpoint)); tail != 0 {
		t.Errorf("the tail is at %d", tail)
	}
}

func one64(shards []Shard, id int) int64 {
	i := slices.IndexFunc(shards, func(s Shard) bool { return s.ID == id })
	return shards[i].Tail
}

// The lost row of a sender had an id that another sender gets.
func TestTimeline_ASenderIsNotTakenForAnotherOneOfItsID(t *testing.T) {
	w := newWorld(t)
	e := w.event(t, 1, w.endpoint(t, "7"), "dids:1")
	s, _ := w.join(t)
	w.moveOn(t)
	w.exec(t, "UPDATE walhook.sender SET timeline = (SELECT token FROM walhook.note_timeline())")
	if _, err := s.Renew(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("renew: %v", err)
	}
	if _, err := s.Settle(t.Context(), []Settlement{delivered(e)}); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("settle: %v", err)
	}
	if err := s.Leave(t.Context()); err != nil || w.count(t, "sender") != 1 {
		t.Errorf("leave: %v, %d senders are left", err, w.count(t, "sender"))
	}
}
