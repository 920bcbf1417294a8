// Package sender delivers the events of the event log to endpoints: one attempt after the
// other, in the order that the endpoint asks for, until each event is delivered or a dead
// letter. A failing endpoint does not delay the others.
//
//	event log ─tailer─▶ ┌ dispatcher ────────────────┐ ─▶ workers ─▶ sender/deliver ─▶ endpoint
//	                    │ lane: queue·window·breaker │ ◀─ result
//	event log ◀─settler─└────────────────────────────┘
//	       (batches of settlements: delivered, retry, dead, parked)
//
// # What it promises
//
//   - At least once: an attempt is settled in the event log before the sender forgets it. A
//     clean stop repeats nothing.
//   - Order: the first deliveries of one record's events reach an endpoint in commit order,
//     also through retries. An endpoint may ask for none or for strict order instead.
//   - One sender per lane. A sender starts no request after its lease ends, by its monotonic
//     clock or by its wall clock, whichever is first.
//   - A sender never sends an event under an older revision of its endpoint than it knows. An
//     attempt disables only the revision under which it was made.
//   - An error of walhook's own machine costs the endpoint nothing.
//
// # Goroutines
//
// [Sender.Run] runs one session after another. A session leases shards of the endpoints. Its
// goroutines renew the lease, take and release shards, tail the log, read for single lanes,
// settle and save. The dispatcher is one of them: it owns every lane, and never blocks on
// another goroutine. Workers make the attempts.
//
// # Lanes
//
// A lane is the state of delivery to one endpoint, without I/O; the time is passed in. It has
// four parts with an owner each: cursor (its offset in the event log), retries (what it knows
// of its rows in retry), health (window, breaker, pauses), scheduling (the dispatcher's
// notes), beside its queue. A lane has at most one event of a record in flight. Its window
// starts at 1, grows by one with each success and halves with each failure. A failed event
// goes to retry, and only its record's later events wait behind it.
//
// The states of a lane are those of the metric walhook_lanes ([outbox.LaneStatus]):
//
//	                 full, or stuck
//	  ┌────── live ─────────────────▶ behind ◀───────────────┐
//	  │        ▲ ◀───────────────────── │                    │ delivered
//	  │ 429,   │   has read up to the   │  several           │
//	  │ 503    │   tail                 │  records fail      │
//	  ▼        │                        ▼                    │
//	paused ────┘    (from live too)   open ──time──▶ half_open (one probe)
//	    its time has passed             ▲                    │
//	                                    └──── the probe fails┘
//
//	held: the endpoint is not active. Once it is active again its breaker, window and
//	pauses start from the beginning.
//
// A lane that is behind, paused, open, half-open or held takes nothing from the tail. It
// stays at its cursor while the tail moves on, and later reads its own range. A lane may also be expiring (events of an
// earlier feed, or past retention, become dead letters first), outdated (the sender is reading
// a newer revision of its endpoint) or leaving (its shard is being released). After a local
// error it waits for a second to a minute and buffers meanwhile.
//
// # Breaker
//
//	closed ── 5 failures in a row, of 2 records ──▶ open ── 10 s … 10 min ──▶ half-open
//	  ▲                                              ▲                        │     │
//	  │                                              └──── the probe fails ───┘     │
//	  └────────────────────────────── the probe is answered ────────────────────────┘
//
// An attempt that never left counts as a second record, and one that took 5 s counts as three
// failures. The open time doubles each time. A probe does not count against its event. Every
// other probe takes an event that was not tried before, so that an event which the endpoint
// cannot process does not keep the breaker open. The state survives a restart.
//
// # What happens on failure
//
//   - An attempt fails: package deliver says with what outcome; the schedule says when the
//     next one is due, or that the event is dead.
//   - An endpoint answers 410, or has only failed for Config.DisableAfter: the settlement of
//     that event disables it.
//   - The event log is away: the sender settles what is in flight once it is back, and starts
//     nothing beyond a bound.
//   - The lease is lost: the sender drops its state and joins again. What was in flight may be
//     sent twice.
//
// # Where to look
//
//	when an event is sent again, and how often       limits.go, schedule; lane_settle.go, fail
//	when a breaker opens and closes                  breaker.go
//	which event a lane sends next                    lane_queue.go, start
//	why a record's events do not overtake            lane_queue.go, list and park
//	what it sends while the event log is away        session.go, lease; dispatcher.go, maxUnsettled
//	when settlements are stored                      dispatcher.go, settleDue
//	when a lane stops buffering                      lane.go, buffers; lane_queue.go, offer
//	when an endpoint is disabled                     lane_settle.go, fail
//	how much is in memory and in flight              sender.go, Config; dispatcher.go
//	how many attempts start at once                  limits.go, attemptLimiter
//	which shards a sender holds                      session.go, rebalance; dispatcher_shards.go
//	what an event log has to do                      log.go; package outboxtest checks it
//
// # What it does not do
//
// It does not route or store events, and it knows nothing of HTTP: package deliver renders,
// signs, dials and classifies.
package sender
