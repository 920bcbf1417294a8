package sender

import (
	"sync"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// job is one attempt, first to be made and then with its result.
type job struct {
	lane       *lane
	generation int
	endpoint   outbox.Endpoint
	event      outbox.Event // the only one, or the first of batch
	record     *record      // of event
	fromRetry  bool
	permit     permit
	breaker    *breaker       // that gave the permit
	number     int64          // the limiter's
	result     deliver.Result // set by the worker

	// batch holds all events where there are several, in order of id, and records
	// theirs; empty for one.
	batch   []outbox.Event
	records []*record
}

// jobPool holds finished jobs for reuse.
var jobPool = sync.Pool{New: func() any { return &job{} }}

// done returns a finished job to the pool.
func (j *job) done() {
	clear(j.batch)
	clear(j.records)
	*j = job{batch: j.batch[:0], records: j.records[:0]}
	jobPool.Put(j)
}

// size is how many events the job carries.
func (j *job) size() int { return max(len(j.batch), 1) }

// at is the i-th event with its record, in order of id.
func (j *job) at(i int) (*outbox.Event, *record) {
	if len(j.batch) == 0 {
		return &j.event, j.record
	}
	return &j.batch[i], j.records[i]
}

// bytes is the size of the bodies.
func (j *job) bytes() (n int) {
	for i := range j.size() {
		e, _ := j.at(i)
		n += len(e.Body)
	}
	return n
}
