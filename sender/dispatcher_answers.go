package sender

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

// laneOf is the lane of an endpoint whose shard is held; nil otherwise.
func (d *dispatcher) laneOf(endpoint int64) *lane { return d.lanes[endpoint] }

// tailOf is how far the log has been handed to the lane's shard.
func (d *dispatcher) tailOf(l *lane) int64 {
	if shard := d.shards[outbox.ShardOf(l.endpoint.ID)]; shard != nil {
		return shard.read
	}
	return 0
}

// takeBatch hands the log's next stretch to the lanes. A batch that does not
// join what a shard has read, because the shard was given up and gained again
// meanwhile, is left to the tailer's new orders.
func (d *dispatcher) takeBatch(b tailBatch, now time.Time) {
	d.takeEndpoints(b.endpoints, now)
	d.evict(b.forgotten, now)
	for i := range b.events {
		e := &b.events[i]
		shard := d.shards[outbox.ShardOf(e.Endpoint)]
		if shard == nil || shard.leaving || shard.read < b.after || e.ID <= shard.read {
			continue
		}
		l := d.laneOf(e.Endpoint)
		if l == nil {
			d.log.Warn("event of an endpoint that was not read", zap.Int64("endpoint", e.Endpoint), zap.String("event", e.WebhookID))
			continue
		}
		l.offer(*e, d.room(), now)
		d.look(l, now)
	}
	for _, id := range b.shards {
		if shard := d.shards[id]; shard != nil && !shard.leaving && shard.read >= b.after {
			shard.read = max(shard.read, b.upto)
		}
	}
}

// takeChanged has lanes read their endpoints again, and send nothing until they
// have. An endpoint without a lane gets none: it is read when it has an event,
// and here only its revision is kept.
func (d *dispatcher) takeChanged(changed []outbox.EndpointRevision, now time.Time) {
	var stale []int64
	for _, c := range changed {
		l := d.laneOf(c.ID)
		if l == nil {
			d.passed[c.ID] = max(d.passed[c.ID], c.Revision)
			continue
		}
		l.newest, l.rests = max(l.newest, c.Revision), false
		if l.wantEndpoint() || l.wantReadable() {
			stale = append(stale, c.ID)
		}
	}
	for ids := range slices.Chunk(stale, readEndpoints) {
		d.wishes.push(laneRequest{endpoints: ids})
	}
}

// takeEndpoints makes lanes for endpoints that have none, and tells the others
// what changed.
func (d *dispatcher) takeEndpoints(endpoints []outbox.Endpoint, now time.Time) {
	for _, e := range endpoints {
		shard := d.shards[outbox.ShardOf(e.ID)]
		if shard == nil {
			continue
		}
		l := d.laneOf(e.ID)
		if l == nil {
			l = newLane(d.policy, e)
			l.leaving, l.horizon = shard.leaving, shard.horizon
			l.newest = d.passed[e.ID]
			delete(d.passed, e.ID)
			d.lanes[e.ID] = l
			d.look(l, now)
			continue
		}
		before := l.endpoint.State
		l.adopt(e, shard.read, now)
		if l.endpoint.State != before {
			d.log.Info("endpoint state", zap.Int64("endpoint", e.ID), zap.String("state", string(e.State)), zap.String("reason", e.Reason))
		}
		d.look(l, now)
	}
}

// takeResults takes one result and as many more as are ready.
func (d *dispatcher) takeResults(j *job, now time.Time) {
	for range settleBatch {
		d.takeResult(j, now)
		select {
		case j = <-d.results:
		default:
			return
		}
	}
	d.takeResult(j, now)
}

func (d *dispatcher) takeResult(j *job, now time.Time) {
	d.inFlight--
	d.pace.end(j.number)
	d.buffered -= len(j.event.Body)
	l := j.lane
	wasClosed, wasUntil := l.breaker.closed(), l.breaker.until
	wasState, wasWarned, wasHeld := l.endpoint.State, l.warned, l.heldReason
	kind, retryIn := l.finish(j, now)
	switch {
	case wasClosed && !l.breaker.closed(), !wasClosed && l.breaker.until.After(wasUntil):
		d.sender.metrics.breaker.WithLabelValues(breakerOpen).Inc()
	case !wasClosed && l.breaker.closed():
		d.sender.metrics.breaker.WithLabelValues(breakerClosed).Inc()
	}
	d.sender.report(j, kind, retryIn)
	if wasHeld == "" && l.heldReason != "" {
		d.log.Warn("nothing can be sent to an endpoint by a fault of this side, it is tried again",
			zap.Int64("endpoint", l.endpoint.ID), zap.String("reason", l.heldReason), zap.String("detail", j.result.Detail))
	}
	if l.warned > wasWarned {
		d.log.Warn("endpoint only fails", zap.Int64("endpoint", l.endpoint.ID), zap.Int("stage", l.warned), zap.String("reason", l.lastReason),
			zap.Time("since", l.failingSince), zap.Duration("disabled_in", l.failingSince.Add(l.disableAfter).Sub(now)))
	}
	if l.endpoint.State != wasState {
		d.log.Warn("endpoint disabled", zap.Int64("endpoint", l.endpoint.ID), zap.String("reason", l.endpoint.Reason))
	}
	j.done()
	d.look(l, now)
}

// takeSettled frees what has become durable. The settlements come before the
// record states: a state speaks about the whole batch.
func (d *dispatcher) takeSettled(s settledBatch, now time.Time) {
	d.settling = false
	d.unsettled -= len(s.batch)
	for i := range s.batch {
		if l := d.laneOf(s.batch[i].Event.Endpoint); l != nil {
			l.settledAs(&s.batch[i])
		}
	}
	for _, state := range s.states {
		if l := d.laneOf(state.Endpoint); l != nil {
			l.recordState(state)
		}
	}
	var last *lane
	for i := range s.batch {
		if l := d.laneOf(s.batch[i].Event.Endpoint); l != nil && l != last {
			d.look(l, now)
			last = l
		}
	}
	clear(s.batch)
	d.spare = s.batch[:0]
}

func (d *dispatcher) takeAnswer(r laneRequest, now time.Time) {
	d.reading--
	l := r.lane
	switch {
	case r.tail != nil:
		l.read(*r.tail, r.stretch, now)
	case r.retries != nil:
		l.readRetries(*r.retries, r.due, now)
	case r.endpoints != nil:
		// The lane of an endpoint that is not there any more stands still.
		for i, e := range r.found {
			if l := d.laneOf(e.ID); l != nil { // not given up meanwhile
				l.asked = false
				d.takeEndpoints(r.found[i:i+1], now)
			}
		}
		return
	case r.expire != nil:
		l.expired(r.expire.SendFrom())
	}
	if d.laneOf(l.endpoint.ID) == l { // not given up meanwhile
		d.look(l, now)
	}
}
