// Package sender delivers the outbox's events to the accounts' endpoints: one
// signed POST per event, in order within a record, retried until it is
// delivered or a dead letter. One endpoint's trouble is nobody else's.
//
//	outbox log ─tailer─▶ ┌ dispatcher ────────────────┐ ─▶ workers ─POST─▶ endpoint
//	                     │ lane: queue·window·breaker │ ◀─ outcome
//	outbox ◀──settler─── └────────────────────────────┘
//	       (batches of fates: delivered, retry, dead, parked)
//
// Each endpoint has a lane, plain state owned by the dispatcher's goroutine.
// A lane has at most one event of a record in flight, and a window of
// different records that starts at 1, grows with success and halves with
// failure, so that a hanging endpoint holds a slot or two. What fails goes to
// retry, and only its record's later events wait behind it. A lane that is
// full, paused or open stops buffering: it stands still at its cursor while
// the tail moves on, and later reads its own range.
//
// On failure: an answer is an outcome by a pure table (judge). Faults of this
// machine cost the endpoint nothing. When the outbox is away, what is in
// flight is settled once it is back, and nothing new starts beyond a bound.
// When the lease ends, nothing starts any more; when it is lost, all state is
// dropped and the sender joins anew, which may repeat what was in flight. A
// clean stop repeats nothing.
//
// It does not route, render or store events, does not follow redirects, and
// does not read more than 4 KiB of an answer. net/http hands over a status
// with the complete header, so a receiver that never ends its header has not
// answered.
package sender
