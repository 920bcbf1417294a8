// Package sender delivers the outbox's events to the accounts' endpoints: one
// signed POST per event, in the order that the endpoint asks for, retried until it
// is delivered or dead-lettered. An endpoint in trouble does not slow down others.
//
//	event log ─tailer─▶ ┌ dispatcher ────────────────┐ ─▶ workers ─POST─▶ endpoint
//	                    │ lane: queue·window·breaker │ ◀─ result
//	event log ◀─settler─└────────────────────────────┘
//	       (batches of settlements: delivered, retry, dead, parked)
//
// [Sender.Run] runs one session after another (session.go). A session leases
// shards of the endpoints; its goroutines renew the lease, rebalance, tail, read
// for single lanes, settle and save. The dispatcher (dispatcher.go) is one of
// them, owns every lane, and never blocks on another.
//
// # Lanes
//
// Each endpoint has a lane: plain state, which gets the time as an argument. Its
// parts are its queue; its cursor, the lane's position in the event log; its
// retries, what it knows of its rows in retry; its health, with window, breaker and
// pauses; and the dispatcher's notes for scheduling. A lane has at most one event of
// a record in flight (of the endpoint with strict ordering; any number with none).
// Its window starts at 1, grows with success and halves with failure; an endpoint
// that does not answer gets no further slots. A failed event goes to retry, and only
// later events of its record wait behind it. A lane may buffer as many bytes as it
// leaves to all others. The dispatcher evicts lanes that are idle.
//
// The states of a lane, as walhook_lanes names them ([outbox.LaneStatus]):
//
//	                 full, or stuck
//	  ┌────── live ─────────────────▶ behind ◀───────────────┐
//	  │        ▲ ◀───────────────────── │                    │ delivered
//	  │ 429,   │   has read up to the   │  several           │
//	  │ 503    │   tail                 │  records fail      │
//	  ▼        │                        ▼                    │
//	paused ────┘    (from live too)   open ──time──▶ half_open (one probe)
//	    the pause ends                  ▲                    │
//	                                    └──── the probe fails┘
//
//	held: the endpoint is not active. When it becomes active again, with a new URL
//	or without, the lane resets its breaker, window and pauses.
//
// A lane that is behind, paused, open or held buffers nothing: it stays at its
// cursor while the tail advances, and later reads its own range. Besides, a lane may
// be expiring (events of an earlier feed, or past retention, are dead-lettered
// before it sends anything), outdated (it reads a newer revision of its endpoint) or
// leaving (its shard is being released: it starts nothing, and settles what is in
// flight). After a local error it waits for a second to a minute, and continues to
// buffer.
//
// The breaker (breaker.go) opens when attempts fail in a row, of more than one
// record or without an event having been sent: for 10 s, and for twice as long each
// time up to 10 min. Every other probe sends an event that was not tried before, so
// that events which the endpoint rejects do not keep the breaker open. A probe does
// not count as an attempt of its event.
//
// The states of an endpoint are the outbox's; the sender makes one change to them:
// an endpoint that answers 410, or has only failed for Config.DisableAfter, is
// disabled with the settlement of that event, unless it was changed meanwhile.
//
// # Failure
//
// A pure table in package deliver turns each answer into a result. Local errors do
// not count against the endpoint. While the outbox is away, the sender starts
// attempts up to a bound, and settles them once the outbox is back. When the lease
// ends, by this machine's monotonic or its wall clock, the sender starts no request.
// When the lease is lost, the sender drops its state and joins again, which may
// repeat what was in flight. A clean stop repeats nothing.
//
// # Limits
//
// The package does not route or store events, and knows nothing of HTTP: package
// deliver renders, signs, dials and classifies. It uses an event log through the
// interfaces of log.go; package outboxtest tests what they promise.
package sender
