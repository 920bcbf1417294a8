package sender

import (
	"time"

	"walhook/outbox"
)

// farAhead makes retries due that are not: for an endpoint that starts afresh.
// It is more than the longest wait there is.
const farAhead = 30 * 24 * time.Hour

// maxBarren is how many reads for a probe may find an event that has to wait
// for another, and is parked. Then the probe waits for one from retry.
const maxBarren = 8

// wantRead says which part of the log the lane would read next by itself. A
// lane that has read all that the tail passed by follows the tail again.
func (l *lane) wantRead(room int, now time.Time) (outbox.TailQuery, bool) {
	if !l.behind || l.reading || !l.sends(now) || l.breaker.open(now) || l.stuck() {
		return outbox.TailQuery{}, false
	}
	if l.readTo >= l.missed {
		l.follow()
		return outbox.TailQuery{}, false
	}
	if l.full(room) || l.events > l.policy.events/2 || l.bodies > l.policy.bytes/2 {
		return outbox.TailQuery{}, false
	}
	q := outbox.TailQuery{
		Endpoint: l.endpoint.ID, After: l.readTo, Upto: l.missed,
		Limit: l.policy.events - l.events, MaxBytes: l.share(room) - l.bodies,
	}
	if !l.breaker.closed() {
		// One event will do for a probe, where retry has none or it is its turn.
		if l.barren >= maxBarren || l.ready.len() > 0 || l.inFlight > 0 || l.readingRetries || !l.freshTurn() && (len(l.retries) > 0 || l.retriesDue(now)) {
			return outbox.TailQuery{}, false
		}
		q.MaxBytes = 1
	}
	if l.readTo < l.horizon {
		q.Unsettled, q.Upto = true, min(l.missed, l.horizon)
	}
	l.reading = true
	return q, true
}

// follow joins the tail again: all that it has passed by is read.
func (l *lane) follow() {
	l.behind = false
	l.seen = max(l.seen, l.readTo)
}

// read takes the answer to wantRead's query.
func (l *lane) read(q outbox.TailQuery, stretch outbox.Stretch, now time.Time) {
	l.reading = false
	if !l.behind || l.readTo != q.After || !l.buffers(now) {
		return // overtaken by a shed, an expiry, an opening; asked again later
	}
	for _, e := range stretch.Events {
		if e.ID < l.endpoint.SendFrom() {
			l.expiring = true
			l.shed(now)
			return
		}
		l.readTo = e.ID
		l.accept(e)
	}
	l.readTo = max(l.readTo, stretch.Upto)
	if !l.breaker.closed() && l.ready.len() == 0 && len(stretch.Events) > 0 {
		l.barren++
	}
}

func (l *lane) retriesDue(now time.Time) bool {
	return l.retryAll || !l.retryAt.IsZero() && !now.Before(l.retryAt)
}

// retryQuery is a question for rows of retry, and what the lane was like then.
type retryQuery struct {
	outbox.RetryQuery
	clock uint64
	all   bool // for those too that are not due
}

// wantRetries says which rows of retry the lane would read next.
func (l *lane) wantRetries(room int, now time.Time) (retryQuery, bool) {
	if l.readingRetries || !l.retriesDue(now) || !l.sends(now) || l.breaker.open(now) ||
		len(l.retries) > 0 || l.inFlight >= l.width() {
		return retryQuery{}, false
	}
	q := retryQuery{clock: l.clock, all: l.retryAll, RetryQuery: outbox.RetryQuery{
		Endpoint: l.endpoint.ID, Now: now, Limit: l.width() - l.inFlight, MaxBytes: l.share(room) - l.bodies,
	}}
	if !l.breaker.closed() {
		if l.freshTurn() && (l.reading || l.ready.len() > 0) {
			return retryQuery{}, false
		}
		q.Limit = 2 // the last probe's event and another
	}
	if q.all {
		q.Now = now.Add(farAhead)
	}
	for id := range l.ofRetry {
		q.Exclude = append(q.Exclude, id)
	}
	l.readingRetries, l.retryAt, l.retryAll = true, time.Time{}, false
	return q, true
}

// readRetries takes the answer to wantRetries's query. A row is taken only when
// nothing happened to its record since the question: otherwise another row may
// now be its oldest.
func (l *lane) readRetries(q retryQuery, due outbox.Retries, now time.Time) {
	l.readingRetries = false
	l.retryAt = earliest(l.retryAt, due.Next)
	if due.More {
		l.retryAt, l.retryAll = now, l.retryAll || q.all
	}
	if !l.sends(now) || l.breaker.open(now) {
		l.retryAt, l.retryAll = earliest(l.retryAt, now), l.retryAll || q.all
		return
	}
	found := map[string]bool{}
	for _, e := range due.Events {
		if e.ID < l.endpoint.SendFrom() {
			l.expiring = true
			l.shed(now)
			return
		}
		found[e.Record] = true
		l.acceptRetry(q, e, now)
	}
	if q.all && !due.More {
		l.freeAbsent(q, found)
	}
}

func (l *lane) acceptRetry(q retryQuery, e outbox.Event, now time.Time) {
	r := l.record(e.Record)
	if _, again := l.ofRetry[e.ID]; again {
		return
	}
	ordered := l.endpoint.Ordering != outbox.OrderingNone
	if ordered && (r.pending > 0 || r.changed > q.clock) {
		return // an answer on its way, or just come, sets the next time
	}
	if ordered && (r.inFlight > 0 || len(r.queue) > 0) {
		// A row that is not by our doing, such as an event sent again.
		l.retryAt = earliest(l.retryAt, now.Add(time.Second))
		return
	}
	l.block(r, true)
	l.ofRetry[e.ID] = struct{}{}
	l.retries = append(l.retries, e)
	l.events++
	l.bodies += len(e.Body)
}

// freeAbsent frees the records that a complete reading of retry did not show:
// an expiry took their rows.
func (l *lane) freeAbsent(q retryQuery, found map[string]bool) {
	for _, r := range l.records {
		if r.blocked && !found[r.name] && r.pending == 0 && r.inFlight == 0 && r.changed <= q.clock && !l.waitsInRetry(r.name) {
			l.block(r, false)
			l.list(r)
			l.forgetIdle(r)
		}
	}
}

func (l *lane) waitsInRetry(record string) bool {
	for _, e := range l.retries {
		if e.Record == record {
			return true
		}
	}
	return false
}
