package outbox

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"
)

// due reads the rows of retry that are due by then.
func (w *world) due(t *testing.T, s *Session, endpoint int64, then time.Time, exclude ...int64) ([]Event, time.Time) {
	t.Helper()
	due, err := s.DueRetries(t.Context(), RetryQuery{Endpoint: endpoint, Now: then, Limit: 100, MaxBytes: math.MaxInt32, Exclude: exclude})
	if err != nil {
		t.Fatal(err)
	}
	return due.Events, due.Next
}

// about says whether two instants are the same: on its way through the outbox's clock an
// instant loses no more than the time that the way took, which began then.
func about(a, b, began time.Time) bool { return a.Sub(b).Abs() <= time.Since(began)+time.Millisecond }

// parking is a world with one endpoint, a session and the events 1 to 4 of one
// record.
func parking(t *testing.T) (w *world, s *Session, endpoint int64, e [5]Event) {
	return parkingIn(t, newWorld(t))
}

// parkingAlone is parking in an outbox whose tables the test changes.
func parkingAlone(t *testing.T) (w *world, s *Session, endpoint int64, e [5]Event) {
	t.Helper()
	return parkingIn(t, newWorldAlone(t))
}

func parkingIn(t *testing.T, in *world) (w *world, s *Session, endpoint int64, e [5]Event) {
	t.Helper()
	w = in
	s, _ = w.join(t)
	endpoint = w.endpoint(t, "7")
	for id := range int64(5) {
		if id > 0 {
			e[id] = w.event(t, id, endpoint, "dids:1")
		}
	}
	return w, s, endpoint, e
}

func wantState(t *testing.T, got []RecordState, endpoint int64, blocked bool) {
	t.Helper()
	if len(got) != 1 || got[0].Endpoint != endpoint || got[0].Record != "dids:1" || got[0].Blocked != blocked {
		t.Errorf("states are %v, want one of dids:1 with blocked=%t", got, blocked)
	}
}

func TestSettle_DeliveredIsOneAttemptAndNothingElse(t *testing.T) {
	w, s, endpoint, e := parking(t)
	if states := w.settle(t, s, delivered(e[1])); len(states) != 0 {
		t.Errorf("states %v of a record that never failed", states)
	}
	got := one[string](t, w, `SELECT format('%s %s %s %s %s %s %s %s %s', endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		FROM walhook.attempt`)
	if want := fmt.Sprintf("%d 1 1 1 00:00:00.005 500 delivered 2xx detail", endpoint); got != want {
		t.Errorf("attempt is %q, want %q", got, want)
	}
	if w.count(t, "retry") != 0 || w.count(t, "dead_letter") != 0 {
		t.Error("a delivered event left more than its attempt")
	}
}

func TestSettle_RetryIsDueWhenItsTimeHasCome(t *testing.T) {
	w, s, endpoint, e := parking(t)
	const aMoment = time.Minute
	began := time.Now()
	at := began.Add(time.Hour).Truncate(time.Microsecond)
	r := retried(e[1], 0)
	r.RetryAt = at
	states := w.settle(t, s, r)
	wantState(t, states, endpoint, true)
	if !about(states[0].NextAt, at, began) {
		t.Errorf("the record's next is at %s, want %s", states[0].NextAt, at)
	}
	due, next := w.due(t, s, endpoint, at.Add(-aMoment))
	wantIDs(t, due)
	if !about(next, at, began) {
		t.Errorf("next is %s, want %s", next, at)
	}
	at = at.Add(aMoment)
	due, next = w.due(t, s, endpoint, at)
	wantIDs(t, due, 1)
	if !next.IsZero() {
		t.Errorf("next is %s, want none", next)
	}
	if got := due[0]; got.Attempts != 1 || got.Record != "dids:1" || string(got.Body) != "xxxxxxxx" || got.WebhookID != "evt_1" {
		t.Errorf("due is %+v", got)
	}
	due, _ = w.due(t, s, endpoint, at, 1)
	wantIDs(t, due) // in flight

	// It fails again, and then arrives.
	e[1].Attempts = 1
	wantState(t, w.settle(t, s, fromRetry(retried(e[1], 2*time.Hour))), endpoint, true)
	due, _ = w.due(t, s, endpoint, at)
	wantIDs(t, due)
	due, _ = w.due(t, s, endpoint, at.Add(2*time.Hour))
	wantIDs(t, due, 1)
	if due[0].Attempts != 2 {
		t.Errorf("%d attempts, want 2", due[0].Attempts)
	}
	wantState(t, w.settle(t, s, fromRetry(delivered(due[0]))), endpoint, false)
	if w.count(t, "retry") != 0 {
		t.Error("a row is left in retry")
	}
}

func TestSettle_DueRetriesAreTheOldestFirstAndLimited(t *testing.T) {
	w, s, endpoint, _ := parking(t)
	var batch []Settlement
	for id := int64(11); id < 16; id++ {
		batch = append(batch, retried(w.event(t, id, endpoint, fmt.Sprint("dids:", id)), time.Duration(20-id)*time.Minute))
	}
	w.settle(t, s, batch...)
	q := RetryQuery{Endpoint: endpoint, Now: time.Now().Add(7*time.Minute + time.Second), Limit: 2, MaxBytes: math.MaxInt32}
	due, err := s.DueRetries(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, due.Events, 15, 14)
	if !due.More {
		t.Error("a limit that was reached is not told")
	}
	if left := time.Until(due.Next); left < 7*time.Minute || left > 8*time.Minute+time.Second {
		t.Errorf("the next that is not due is in %s, want about 8m", left)
	}
	q.Limit, q.MaxBytes = 10, 1 // the first is read whatever its size
	if due, err = s.DueRetries(t.Context(), q); err != nil || len(due.Events) != 1 || !due.More {
		t.Errorf("%d events and more=%t with room for one byte, %v", len(due.Events), due.More, err)
	}
}

func TestSettle_LaterEventsWaitBehindTheFailedOne(t *testing.T) {
	for name, run := range map[string]func(t *testing.T, w *world, s *Session, endpoint int64, e [5]Event){
		"parked with the failure, head delivered later": func(t *testing.T, w *world, s *Session, endpoint int64, e [5]Event) {
			wantState(t, w.settle(t, s, retried(e[1], time.Hour), parked(e[2]), parked(e[3])), endpoint, true)
			wantState(t, w.settle(t, s, fromRetry(delivered(e[1]))), endpoint, true)
		},
		"parked after the failure, in two batches": func(t *testing.T, w *world, s *Session, endpoint int64, e [5]Event) {
			w.settle(t, s, retried(e[1], time.Hour))
			wantState(t, w.settle(t, s, parked(e[2])), endpoint, true)
			wantState(t, w.settle(t, s, parked(e[3])), endpoint, true)
			wantState(t, w.settle(t, s, fromRetry(delivered(e[1]))), endpoint, true)
		},
		"parked in the batch of the head's delivery": func(t *testing.T, w *world, s *Session, endpoint int64, e [5]Event) {
			w.settle(t, s, retried(e[1], time.Hour))
			wantState(t, w.settle(t, s, parked(e[2]), fromRetry(delivered(e[1])), parked(e[3])), endpoint, true)
		},
		"parked in the batch after the head's delivery": func(t *testing.T, w *world, s *Session, endpoint int64, e [5]Event) {
			w.settle(t, s, retried(e[1], time.Hour))
			wantState(t, w.settle(t, s, fromRetry(delivered(e[1]))), endpoint, false)
			wantState(t, w.settle(t, s, parked(e[2]), parked(e[3])), endpoint, true)
		},
		"head dead": func(t *testing.T, w *world, s *Session, endpoint int64, e [5]Event) {
			w.settle(t, s, retried(e[1], time.Hour), parked(e[2]), parked(e[3]))
			wantState(t, w.settle(t, s, fromRetry(dead(e[1]))), endpoint, true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, s, endpoint, e := parking(t)
			w.event(t, 9, endpoint, "dids:2")
			run(t, w, s, endpoint, e)

			// Event 2 is the record's oldest now: due, and 3 is not.
			then := time.Now().Add(time.Minute)
			due, next := w.due(t, s, endpoint, then)
			wantIDs(t, due, 2)
			if due[0].Attempts != 0 || !next.IsZero() {
				t.Errorf("due after %d attempts, next %s", due[0].Attempts, next)
			}
			wantState(t, w.settle(t, s, fromRetry(delivered(due[0]))), endpoint, true)
			due, _ = w.due(t, s, endpoint, then)
			wantIDs(t, due, 3)
			wantState(t, w.settle(t, s, fromRetry(delivered(due[0]))), endpoint, false)
		})
	}
}

func TestSettle_ParkedEventIsNotDueBeforeItsHeadIsGone(t *testing.T) {
	w, s, endpoint, e := parking(t)
	states := w.settle(t, s, retried(e[1], time.Hour), parked(e[2]))
	if left := time.Until(states[0].NextAt); left < 50*time.Minute {
		t.Errorf("the record is due in %s, want the hour of its oldest", left)
	}
	due, _ := w.due(t, s, endpoint, time.Now().Add(100*time.Hour))
	wantIDs(t, due, 1)
	due, _ = w.due(t, s, endpoint, time.Now().Add(100*time.Hour), 1)
	wantIDs(t, due) // 1 is in flight: 2 waits all the more
}

func TestSettle_RecordsDoNotWaitForOneAnother(t *testing.T) {
	w, s, endpoint, e := parking(t)
	other := w.endpoint(t, "8")
	sameName := w.event(t, 11, other, "dids:1")
	w.settle(t, s, retried(e[1], time.Hour), parked(e[2]))
	wantState(t, w.settle(t, s, parked(sameName)), other, true)
	due, _ := w.due(t, s, other, time.Now().Add(time.Minute))
	wantIDs(t, due, 11)
	wantState(t, w.settle(t, s, fromRetry(delivered(due[0]))), other, false)
	due, _ = w.due(t, s, endpoint, time.Now().Add(time.Minute))
	wantIDs(t, due)
}

func TestSettle_ParkingTwiceChangesNothing(t *testing.T) {
	w, s, endpoint, e := parking(t)
	w.settle(t, s, retried(e[1], time.Minute), parked(e[2]))
	w.settle(t, s, parked(e[2]))
	// Parked again after it was promoted and failed: its schedule stays.
	w.settle(t, s, fromRetry(delivered(e[1])))
	w.settle(t, s, fromRetry(retried(e[2], time.Hour)))
	w.settle(t, s, parked(e[2]))
	due, next := w.due(t, s, endpoint, time.Now().Add(time.Minute))
	wantIDs(t, due)
	if time.Until(next) < 50*time.Minute {
		t.Errorf("next is in %s", time.Until(next))
	}
}

func TestSettle_DeadLetterKeepsTheBody(t *testing.T) {
	for _, origin := range []string{"from the log", "from retry"} {
		t.Run(origin, func(t *testing.T) {
			w, s, endpoint, e := parking(t)
			d := dead(e[1])
			if origin == "from retry" {
				w.settle(t, s, retried(e[1], 0))
				e[1].Attempts = 1
				d = fromRetry(dead(e[1]))
			}
			w.settle(t, s, d)
			got := one[string](t, w, `SELECT format('%s %s %s %s %s %s %s %s %s %s', endpoint, event_id, record, webhook_id, schema, type,
				attempts, reason, size, convert_from(body, 'UTF8')) FROM walhook.dead_letter`)
			if want := fmt.Sprintf("%d 1 dids:1 evt_1 dids insert %d 5xx 8 xxxxxxxx", endpoint, d.Attempt.Number); got != want {
				t.Errorf("dead letter is %q, want %q", got, want)
			}
			if w.count(t, "retry") != 0 {
				t.Error("the dead event is still in retry")
			}
		})
	}
}

func TestSettle_DisablesOnlyTheRevisionThatAnswered(t *testing.T) {
	w, s, endpoint, e := parking(t)
	w.exec(t, "UPDATE walhook.endpoint SET revision = 2")
	late := retried(e[1], time.Hour)
	late.Disable = "the endpoint answered 410 Gone"
	w.settle(t, s, late)
	if state := one[string](t, w, "SELECT state FROM walhook.endpoint"); state != "active" {
		t.Fatalf("an answer to an earlier URL made the endpoint %s", state)
	}
	e[2].Revision = 2
	now := retried(e[2], time.Hour)
	now.Disable = "the endpoint answered 410 Gone"
	w.settle(t, s, now)
	got := one[string](t, w, "SELECT format('%s/%s/%s/%s', state, disabled_by, revision, reason) FROM walhook.endpoint")
	if want := "disabled/walhook/3/the endpoint answered 410 Gone"; got != want {
		t.Errorf("endpoint is %s, want %s", got, want)
	}
	changed, err := s.Endpoints(t.Context(), []int64{endpoint})
	if err != nil || len(changed) != 1 || changed[0].State != EndpointDisabled || changed[0].Reason == "" {
		t.Errorf("endpoint is read as %+v, %v", changed, err)
	}
}

func TestSettle_IsAllOrNothing(t *testing.T) {
	w, s, _, e := parkingAlone(t)
	broken := delivered(e[2])
	broken.Attempt.Outcome = "pause"
	refuse(t, w, "walhook.attempt", "NEW.outcome = 'pause'", "53100") // the disk is full: it is no item's fault
	if _, err := s.Settle(t.Context(), []Settlement{retried(e[1], time.Hour), broken}); err == nil || errors.Is(err, ErrLeaseLost) {
		t.Fatalf("settled: %v", err)
	}
	if w.count(t, "attempt") != 0 || w.count(t, "retry") != 0 {
		t.Error("a part of the batch is stored")
	}
	w.settle(t, s, retried(e[1], time.Hour), delivered(e[2])) // the connection is usable again
}

func TestSettle_LargeBatchesAreSettledAtomically(t *testing.T) {
	w, s, endpoint, _ := parking(t)
	w.bodies(t, 1000, 2999, endpoint, "dids:5", 8)
	batch := make([]Settlement, 0, 2000)
	for id := int64(1000); id < 3000; id++ {
		e := Event{ID: id, Endpoint: endpoint, Revision: 1, Record: fmt.Sprint("dids:", id%100)}
		switch id % 4 {
		case 0:
			batch = append(batch, delivered(e))
		case 1:
			batch = append(batch, dead(e))
		case 2:
			batch = append(batch, retried(e, time.Minute))
		default:
			batch = append(batch, parked(e))
		}
	}
	if states := w.settle(t, s, batch...); len(states) != 50 {
		t.Errorf("%d records answered, want 50", len(states))
	}
	if a, d, r := w.count(t, "attempt"), w.count(t, "dead_letter"), w.count(t, "retry"); a != 1500 || d != 500 || r != 1000 {
		t.Errorf("%d attempts, %d dead letters, %d retries", a, d, r)
	}
	due, err := s.DueRetries(t.Context(), RetryQuery{Endpoint: endpoint, Now: time.Now().Add(time.Hour), Limit: math.MaxInt32, MaxBytes: math.MaxInt32})
	if err != nil || len(due.Events) != 500+25 { // all that failed, and each oldest that waits for nothing
		t.Errorf("%d due, %v", len(due.Events), err)
	}
}

// The answer to a settlement may be lost after its commit.
func TestSettle_WhatWasSettledBeforeIsSettledOnce(t *testing.T) {
	for _, n := range []int64{fewRows, 4 * fewRows} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w, s, endpoint, _ := parking(t)
			w.bodies(t, 1000, 1000+2*n, endpoint, "dids:5", 8)
			var batch []Settlement
			for id := 1000; id < 1000+int(n); id++ {
				batch = append(batch, delivered(Event{ID: int64(id), Endpoint: endpoint, Revision: 1, Record: "dids:5"}))
			}
			last := retried(Event{ID: 1000 + n, Endpoint: endpoint, Revision: 1, Record: "dids:6"}, time.Minute)
			batch = append(batch, last, dead(Event{ID: 1001 + n, Endpoint: endpoint, Revision: 1, Record: "dids:7"}))
			for range 2 {
				states := w.settle(t, s, batch...)
				if len(states) != 1 || !states[0].Blocked {
					t.Errorf("states %v, want one that is blocked", states)
				}
			}
			if a, d, r := w.count(t, "attempt"), w.count(t, "dead_letter"), w.count(t, "retry"); a != int(n)+2 || d != 1 || r != 1 {
				t.Errorf("%d attempts, %d dead letters, %d retries of %d events", a, d, r, len(batch))
			}
		})
	}
}
