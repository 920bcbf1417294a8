package sender

import (
	"iter"
	"slices"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// This file holds what is different for an endpoint whose requests carry several events.
// Such a request takes what is ready, so nothing waits for a timer: while one is under
// way, the next one fills. All events of a batch have one fate, until it has failed
// twice; then it is halved, and the halves again, down to the event that fails.

const (
	// batchBytes bounds the bodies of one batch, as the event log has them, with custom
	// data. A larger event is sent by itself. Common servers take 100 kB of JSON.
	batchBytes = 64 << 10
	// batchIDBytes bounds the header that names the events. Common servers take 8 KiB.
	batchIDBytes = 4 << 10

	// splitAfter is how many counted failures halve a batch. What is halved fails
	// without being counted, so that the single event has its schedule before it.
	splitAfter = 2
)

// batch is how many events a request of the lane carries at most. An endpoint whose
// ordering is not per record gets one.
func (l *lane) batch() int {
	if !l.parks() {
		return min(l.endpoint.Batch(), 1)
	}
	return l.endpoint.Batch()
}

// worthSending says that what is ready may be sent now: a batch is full, or the lane is
// free.
func (l *lane) worthSending() bool {
	most := l.batch()
	if most <= 1 || l.inFlight == 0 || l.ready.len() == 0 {
		return l.ready.len() > 0
	}
	n, size := 0, 0
	for r := range l.ready.all() {
		for i := range r.queue {
			n++
			size += l.weight(&r.queue[i])
			if n >= most || size >= min(batchBytes, l.policy.bytes/2) {
				return true
			}
		}
	}
	return false
}

// weight is about how many bytes an event adds to a batch.
func (l *lane) weight(e *outbox.Event) int {
	return len(e.Body) + len(l.endpoint.Settings.CustomData)
}

// takeBatch gives a job the events that are ready, up to the bounds. Of a record it takes
// the first ones; the others are ready once the batch is settled.
func (l *lane) takeBatch(j *job, most int) {
	size, ids, full := 0, 0, false
	for l.ready.len() > 0 && len(j.batch) < most && !full {
		r := *l.ready.at(0)
		took := 0
		for took < len(r.queue) && len(j.batch) < most {
			e := &r.queue[took]
			size, ids = size+l.weight(e), ids+len(e.WebhookID)+1
			if full = len(j.batch) > 0 && (size > batchBytes || ids > batchIDBytes); full {
				break
			}
			j.batch, j.records = append(j.batch, *e), append(j.records, r)
			l.cursor.offsets.set(e.ID, taken)
			took++
		}
		if took == 0 {
			break
		}
		l.ready.pop()
		r.listed = false
		clear(r.queue[:took])
		r.queue = r.queue[took:]
	}
	j.sort()
}

// untried says that what waits in retry is an event that only waited behind another one of
// its record. It goes into a batch as one from the log does.
func untried(unit []outbox.Event) bool {
	return len(unit) == 1 && unit[0].Batch == 0 && unit[0].Attempts == 0
}

// readyRetry returns what may be sent now of what waits in retry: with batches, what was
// sent before, or a full batch of what was not, or anything if the lane is free.
func (l *lane) readyRetry() (int, bool) {
	most := l.batch()
	if most <= 1 || l.inFlight == 0 {
		return 0, len(l.retries.waiting) > 0
	}
	n, size := 0, 0
	for i, unit := range l.retries.waiting {
		if !untried(unit) {
			return i, true
		}
		n, size = n+1, size+l.weight(&unit[0])
		if n >= most || size >= min(batchBytes, l.policy.bytes/2) {
			return 0, true
		}
	}
	return 0, false
}

// takeUntried gives a job a batch of what waits in retry and was not sent before. Of a
// record only the oldest event waits there.
func (l *lane) takeUntried(j *job, most int) {
	size, ids := 0, 0
	l.retries.waiting = slices.DeleteFunc(l.retries.waiting, func(unit []outbox.Event) bool {
		if !untried(unit) || len(j.batch) >= most {
			return false
		}
		e := &unit[0]
		size, ids = size+l.weight(e), ids+len(e.WebhookID)+1
		if len(j.batch) > 0 && (size > batchBytes || ids > batchIDBytes) {
			return false
		}
		j.batch, j.records = append(j.batch, *e), append(j.records, l.record(e.Record))
		return true
	})
	j.sort()
}

// takeRetry gives a job what waits at a place: an event, or a batch as it was sent
// before.
func (l *lane) takeRetry(j *job, i int) {
	j.fromRetry = true
	if most := l.batch(); most > 1 && !j.permit.probe && untried(l.retries.waiting[i]) {
		l.takeUntried(j, most)
		return
	}
	for _, e := range l.retries.waiting[i] {
		j.batch, j.records = append(j.batch, e), append(j.records, l.record(e.Record))
	}
	l.retries.waiting = slices.Delete(l.retries.waiting, i, i+1)
	j.sort()
}

// sort puts the events of a job in order of id. One event is no batch.
func (j *job) sort() {
	sorted := func(a, b int) bool { return j.batch[a].ID < j.batch[b].ID }
	for i := 1; i < len(j.batch); i++ {
		for k := i; k > 0 && sorted(k, k-1); k-- {
			j.batch[k], j.batch[k-1] = j.batch[k-1], j.batch[k]
			j.records[k], j.records[k-1] = j.records[k-1], j.records[k]
		}
	}
	j.event, j.record = j.batch[0], j.records[0]
	if len(j.batch) == 1 {
		j.batch, j.records = j.batch[:0], j.records[:0]
	}
}

// units cuts rows of retry into what is sent together.
func units(rows []outbox.Event, batches bool) iter.Seq[[]outbox.Event] {
	return func(yield func([]outbox.Event) bool) {
		for from := 0; from < len(rows); {
			upto := from + 1
			for batches && rows[from].Batch != 0 && upto < len(rows) && rows[upto].Batch == rows[from].Batch {
				upto++
			}
			if !yield(rows[from:upto:upto]) {
				return
			}
			from = upto
		}
	}
}

// splits says that a failed job is to be sent again in halves.
func (j *job) splits(failed int, again bool) bool {
	if j.size() == 1 {
		return false
	}
	return j.result.Smaller || j.result.Outcome == deliver.Dead || !j.permit.probe && (failed >= splitAfter || !again)
}

// partOf names the batch of retry in which a job's i-th event is sent again: all of the
// job, or one of its halves. An event by itself needs none. behind says that an earlier
// event of the job is of its record.
func (j *job) partOf(i int, split bool) (batch int64, behind bool) {
	n := j.size()
	if n == 1 {
		return 0, false
	}
	from, upto := 0, n
	if half := (n + 1) / 2; split && i < half {
		upto = half
	} else if split {
		from = half
	}
	behind = slices.Contains(j.records[:i], j.records[i])
	if upto-from == 1 && !behind {
		return 0, false
	}
	return j.batch[from].ID, behind
}
