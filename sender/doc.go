// Package sender delivers the outbox's events to the accounts' endpoints: one
// signed POST per event, in the order that the endpoint asks for, retried until
// it is delivered or a dead letter. One endpoint's trouble is nobody else's.
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
// Each endpoint has a lane: plain state, to which the time is passed in. Its
// parts are its queue; its cursor, where it is in the log; its retries, what it
// knows of its rows in retry; its health, with window, breaker and pauses; and the
// dispatcher's notes for scheduling. A lane has at most one event of a record in
// flight (of the endpoint with strict ordering; any number with none). Its window
// starts at 1, grows with success and halves with failure; an endpoint that does
// not answer gets no further slots. What fails goes to retry, and only its record's
// later events wait behind it. A lane may hold as many bytes as it leaves to all
// others, and an idle one is evicted.
//
// What happens to a lane, in the words of walhook_lanes ([outbox.LaneStatus]):
//
//	                 full, or stuck
//	  ┌────── live ─────────────────▶ behind ◀───────────────┐
//	  │        ▲ ◀───────────────────── │                    │ delivered
//	  │ 429,   │   has read up to the   │  several           │
//	  │ 503    │   tail                 │  records fail      │
//	  ▼        │                        ▼                    │
//	paused ────┘    (from live too)   open ──time──▶ half_open (one probe)
//	    its time is over                ▲                    │
//	                                    └──── the probe fails┘
//
//	held: the endpoint is not active. Once it is, with a new URL or without, its
//	breaker, window and pauses begin afresh.
//
// A lane that is behind, paused, open or held buffers nothing: it stays at its
// cursor while the tail moves on, and later reads its own range. Besides that a
// lane may be expiring (what an earlier feed left, or retention claims, becomes
// dead letters before anything is sent), outdated (a newer revision of its endpoint
// is being read) or leaving (its shard is being released: nothing starts any more,
// and what is in flight is settled). After a fault of this machine it waits for
// a second to a minute, and buffers meanwhile.
//
// The breaker (breaker.go) opens when attempts fail in a row, of more than one
// record or before any event was sent, for 10 s, and for twice as long each time up
// to 10 min. Every other probe is an event that was not tried before, so that
// events which the endpoint cannot take do not keep it open. A probe does not count
// against its event.
//
// The states of an endpoint are the outbox's; the sender makes one change to them:
// an endpoint that answers 410, or has only failed for Config.DisableAfter, is
// disabled with the settlement of that event, unless it was changed meanwhile.
//
// # Failure
//
// A result is made by a pure table in package deliver. Faults of this machine
// cost the endpoint nothing. When the outbox is away, what is in flight is
// settled once it is back, and nothing new starts beyond a bound. When the lease
// ends, by whichever of this machine's clocks is first, no request begins any
// more; when it is lost, all state is dropped and the sender joins again, which may
// repeat what was in flight. A clean stop repeats nothing.
//
// # Limits
//
// It does not route or store events, and nothing of HTTP is decided here: package
// deliver renders, signs, dials and classifies. It asks an event log through the
// interfaces of log.go; package outboxtest says what they promise.
package sender
