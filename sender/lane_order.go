package sender

import (
	"slices"
	"time"

	"walhook/outbox"
)

// What an endpoint's ordering means is decided here. What is known of a record
// (what waits, what is in flight, whether it has rows in retry) is the same in
// all three, so a change takes effect at once: what waits is read again.
//
//	none    each event is ready by itself; a failed one holds back nothing
//	record  one of a record is ready; behind a failed one the rest is parked
//	strict  each event is ready in its turn, one in flight; behind a failed one
//	        the lane stands still, and nothing is written

// parks says that events wait in retry behind a failed one of their record.
func (l *lane) parks() bool {
	return l.endpoint.Ordering != outbox.OrderingNone && l.endpoint.Ordering != outbox.OrderingStrict
}

// stuck says that strict ordering lets nothing pass what is in retry.
func (l *lane) stuck() bool {
	return l.endpoint.Ordering == outbox.OrderingStrict && l.blocked > 0
}

// width is how many attempts may be in flight, apart from the breaker.
func (l *lane) width() int {
	if l.endpoint.Ordering == outbox.OrderingStrict {
		return 1
	}
	return l.window
}

func (l *lane) enqueue(r *record, e outbox.Event) {
	r.queue = append(r.queue, e)
	l.events++
	l.bodies += len(e.Body)
	if !l.parks() {
		l.ready.push(r) // once per event
	}
}

// list makes a record's next event available, when that waits for the record.
func (l *lane) list(r *record) {
	if l.parks() && len(r.queue) > 0 && r.inFlight == 0 && !r.blocked && !r.listed {
		r.listed = true
		l.ready.push(r)
	}
}

// requeue puts an event back that was taken from the queue.
func (l *lane) requeue(r *record, e outbox.Event, now time.Time) {
	l.ledger.set(e.ID, waiting)
	l.events++
	l.bodies += len(e.Body)
	i, _ := slices.BinarySearchFunc(r.queue, e.ID, func(q outbox.Event, id int64) int { return int(q.ID - id) })
	r.queue = slices.Insert(r.queue, i, e)
	switch l.endpoint.Ordering {
	case outbox.OrderingNone:
		l.ready.push(r)
	case outbox.OrderingStrict:
		l.shed(now) // and is read again, in order
	default:
		l.list(r)
	}
}

// holdBack parks what waits behind a failed event of its record. With strict
// ordering the lane, which is stuck now, lets go of everything instead.
func (l *lane) holdBack(r *record) {
	if !l.parks() {
		return
	}
	for _, e := range r.queue {
		l.events--
		l.bodies -= len(e.Body)
		l.park(r, e)
	}
	r.empty()
}

// block notes whether a record has rows in retry.
func (l *lane) block(r *record, blocked bool) {
	if r.blocked == blocked {
		return
	}
	r.blocked = blocked
	if blocked {
		l.blocked++
	} else {
		l.blocked--
	}
}
