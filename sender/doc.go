// Package sender delivers the outbox's events to the accounts' endpoints: one
// signed POST per event, in the order that the endpoint asks for, retried until
// it is delivered or a dead letter. One endpoint's trouble is nobody else's.
//
//	outbox log ─tailer─▶ ┌ dispatcher ────────────────┐ ─▶ workers ─POST─▶ endpoint
//	                     │ lane: queue·window·breaker │ ◀─ outcome
//	outbox ◀──settler─── └────────────────────────────┘
//	       (batches of fates: delivered, retry, dead, parked)
//
// Each endpoint has a lane, plain state owned by the dispatcher's goroutine.
// A lane has at most one event of a record in flight (of the endpoint with
// strict ordering; as many as there are with none), and a window that starts at
// 1, grows with success and halves with failure; an endpoint that gives nothing
// back gets no further slots. What fails goes to retry, and only its record's
// later events wait behind it. A lane that is full, paused, open or stuck stops
// buffering: it stands still at its cursor while the tail moves on, and later
// reads its own range. A lane may hold as many bytes as it leaves to all
// others, and one that is idle is let go of.
//
// An endpoint's breaker opens when attempts fail in a row, of more than one
// record or before any event was sent. Every other probe is an event that was
// not tried before, so that events which it cannot take do not keep it open.
//
// One attempt is a call of a [deliver.Destination], whose result says what it
// means and whose fault it is: lanes know nothing of HTTP.
//
// On failure: faults of this machine cost the endpoint nothing. When the outbox is away, what is in
// flight is settled once it is back, and nothing new starts beyond a bound.
// When the lease ends, by whichever of this machine's clocks is first, no
// request begins any more; when it is lost, all state is dropped and the sender
// joins anew, which may repeat what was in flight. A clean stop repeats nothing.
//
// It does not route, render or store events, and opens no connection to an
// endpoint: see [walhook/sender/deliver].
package sender
