package outbox

import (
	"errors"
	"slices"
	"testing"
)

// An outbox that fails over to a standby that had not received the newest, or that is
// restored, looks like the one before: the epoch is the same.

// lose takes the newest append out of the outbox.
func (f *feed) lose(t *testing.T) {
	t.Helper()
	f.exec(t, `WITH lost AS (DELETE FROM walhook.position WHERE id = (SELECT max(id) FROM walhook.position))
		DELETE FROM walhook.event WHERE id >= (SELECT next_event_id FROM walhook.position ORDER BY id DESC OFFSET 1 LIMIT 1)`)
}

// stored lists the ids of the event log and of the positions.
func (f *feed) stored(t *testing.T) []int64 {
	t.Helper()
	return all[int64](t, f.world, `SELECT id FROM walhook.event UNION ALL SELECT -id FROM walhook.position ORDER BY 1`)
}

func TestPublisher_NothingIsAppendedToAnOutboxThatLostTheNewest(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(t *testing.T, f *feed) error{
		"changes": func(t *testing.T, f *feed) error {
			return f.publisher.Append(t.Context(), batch(f.tx(dids.Insert(3, 7, "313"))))
		},
		"no event": func(t *testing.T, f *feed) error {
			return f.publisher.Append(t.Context(), batch(f.tx(dids.Insert(3, 99, "313")))) // nobody gets it
		},
		"changes of which one cannot be stored": func(t *testing.T, f *feed) error {
			refuse(t, f.world, "walhook.event", "NEW.record = 'dids:4'", "22000")
			return f.publisher.Append(t.Context(), batch(f.tx(dids.Insert(3, 7, "313"), dids.Insert(4, 7, "314"))))
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
			reached := f.commitLSN
			f.commit(t, dids.Insert(2, 7, "312")) // event 3
			f.lose(t)
			before := f.stored(t)
			if err := write(t, f); !errors.Is(err, errOutboxRewound) {
				t.Errorf("got %v, want %v", err, errOutboxRewound)
			}
			if after := f.stored(t); !slices.Equal(after, before) {
				t.Errorf("events and positions are %v, were %v", after, before)
			}
			if n := f.count(t, "set_aside"); n != 0 {
				t.Errorf("%d items are set aside", n)
			}
			if f.publisher.live {
				t.Error("the publisher goes on")
			}
			f.exec(t, "DROP TRIGGER IF EXISTS refuse ON walhook.event")
			if got := f.takeOver(t).Position; got.Commit != reached {
				t.Errorf("the reader resumes at %s, want %s", got, reached)
			}
			f.commit(t, dids.Insert(5, 7, "315"))
			if id := one[int64](t, f.world, "SELECT id FROM walhook.event WHERE record = 'dids:5'"); id <= 3 {
				t.Errorf("id %d is given again: a sender may have read it already", id)
			}
		})
	}
}

// A publisher that knows nothing of the events that were lost gives their ids to no
// others once the gap is accepted.
func TestPublisher_AfterAGapIDsAreNotGivenAgain(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.commit(t, dids.Insert(1, 7, "311"))
	f.restart(t)
	f.commit(t, dids.Insert(2, 7, "312"))
	f.exec(t, "INSERT INTO walhook.gap (from_lsn, reason, accepted_at) VALUES ('0/1', 'lost', clock_timestamp())")
	f.restart(t)
	f.commit(t, dids.Insert(3, 7, "313"))
	f.restart(t)
	f.commit(t, dids.Insert(4, 7, "314"))
	want := []int64{1, 2, 3, eventPartitionSize, eventPartitionSize + 1}
	if got := all[int64](t, f.world, "SELECT id FROM walhook.event ORDER BY id"); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}
