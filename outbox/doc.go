// Package outbox is the log between the source and the receivers, kept in
// PostgreSQL: what is appended with the position it came from is delivered,
// retried or a dead letter, whatever crashes.
//
//	publisher ──Append──▶ event (the log) ◀──Tail── sender
//	                      position          ──Settle▶ attempt, retry, dead_letter
//	inbox ────Run─────▶   endpoint, owner   ──Save──▶ lane, shard
//
// One publisher writes at a time, fenced by its epoch; so event ids rise in
// commit order and a reader of "id > n" can miss nothing. Events are never
// updated: attempts are appended beside them and are the acknowledgement, and
// only what fails gets a row of its own in retry. Senders hold shards of the
// endpoints by a lease; what a stale sender writes is refused.
//
// What one appending transaction writes is a plan, which package route makes of a
// view of what is stored. Publisher.commit stores it, whoever made it, and then
// changes the view; so an append that was rolled back is simply tried again.
//
// Changes of the source are appended by whoever reads it; an event that is born
// elsewhere waits in inbox, and Publisher.Run appends it beside that. A mutex
// lets the two take turns, and the lock on the epoch keeps a transaction that
// was given up waiting for from interleaving with the next.
//
// For a webhook with daily delivery occurrences are counted in the appending
// transaction; its day ends at a place of the source's log, and Publisher.Run
// puts its counts into inbox.
//
// Before a part of the log is dropped, what is undelivered in it becomes dead
// letters: by the session that holds the lane (Endpoint.SendFrom, Expire), or by
// Maintain where none does.
//
// An endpoint is in one of four states. endpoint_state.go takes every step from one to
// another, for whoever asks, and each step raises its revision:
//
//	          no URL, or the webhook is deleted
//	active ───────────────────────────────────────▶ cleared
//	 │  ▲ │                                            │ ▲
//	 │  │ └─ a URL that cannot be used ─▶ unusable ────┼─┘
//	 │  └────── a URL that can be used ──────┴─────────┘
//	 │ 410, or failing for long (walhook); the operator; the account
//	 ▼
//	disabled ── enabled; or a new URL, where walhook disabled it ──▶ active
//	   └─ no URL, or one that cannot be used ──▶ cleared, unusable
//
// What the operator or the account disabled stays so for the next URL: without a URL
// that can be used the row keeps who it was and why, and is disabled again once there
// is one. A hold is an operator's word on a host or on a whole account (holds.go): what
// it covers is disabled, also what the account sets later. [Endpoint] is as a sender
// has it: where what is stored of an endpoint cannot be read, an active one is unusable
// to it. How its lane stands is a [LaneStatus], which [LaneFacts] decide.
//
// [Store.Access] opens the store to package admin, which answers the API and the
// operator's commands. Package seal encrypts secrets, package address reads URLs.
//
// When the database is away every call returns its error and nothing is
// assumed: the publisher stops acknowledging the source, the senders stop at
// what they can still settle.
//
// [Session] keeps what package outboxtest asks of any event log that is put under
// the sender.
//
// # Where to look
//
//	what one append stores                            commit.go, planWrite
//	when an append is tried again or split            append.go, Append and appendIsolated
//	what the publisher knows, and when it reads it    view.go
//	what keeps a former owner from writing            transaction.go, fence
//	how an event is stored                            event.go, eventRow; rows.go
//	what a sender reads, and up to which bound        tail.go, Tail and DueRetries
//	what one settlement stores                        settle.go, Settle
//	how an event becomes a dead letter                dead_letter.go, deaths and bury
//	which events are past retention                   expire.go, expireBefore and Expire
//	which sender holds which shards                   session.go, Rebalance
//	what of a lane its next owner knows               handover.go, Save
//	when a day ends, and when its counts are sent     daily.go, endReachedDays and sendDay
//	when events of the inbox are appended             inbox.go, Run
//	what happens to one bad item                      isolate.go, loops
//	when partitions are made and dropped              maintain.go, MakePartitions and retain
//	how the backlog is measured                       metrics.go, measure
//	what is recorded of the source                    source.go
//
// It does not send, and it does not read the source.
package outbox
