// Package outbox stores in PostgreSQL everything between the source and the receivers: the
// event log, endpoints, attempts, retries, dead letters, leases. What is appended is
// delivered, in retry, or a dead letter, whatever crashes.
//
//	publisher ──Append──▶ event (the event log) ◀──Tail── sender
//	  ▲ plan  ▲           position              ──Settle▶ attempt, retry, dead_letter
//	  │       │           endpoint, owner       ──Save──▶ lane, shard
//	 route    └────Run─── inbox, request: notices, daily counts, replays
//
// # What it promises
//
//   - Exactly once in. One transaction commits events together with the position that they
//     came from. [Publisher.TakeOver] returns that position, and the reader resumes there.
//   - One publisher writes at a time; a new epoch fences the previous one. So event ids rise
//     in commit order, and a reader of "id > n" misses nothing.
//   - Events are never updated. An attempt is a row beside its event and is its
//     acknowledgement. Only an event that fails, or waits behind one, has a row in retry.
//   - A sender holds shards of the endpoints by a lease. Every write of a sender checks the
//     lease, by the database's clock and under a lock.
//   - [Session] keeps the promises that package outboxtest checks, so another event log can
//     take its place under the sender.
//
// # How an append works
//
// [Publisher.Append] brings its view up to date, reads what the batch needs, and calls
// route.Route, which makes a plan. Publisher.commit stores the plan in one transaction and
// changes the view after the COMMIT only. If the server refuses a value, the batch is tried
// again in parts, and what cannot be stored is listed as unrouted.
//
// [Publisher.Run] appends the events of the inbox in the same way, ends days, and makes
// replays. It works beside the appends of changes; a mutex orders the commits.
//
// # States of an endpoint
//
// An endpoint is in one of four states. endpoint_state.go decides each step from one to
// another, and each step raises the endpoint's revision.
//
//	          no URL, or the webhook is deleted
//	active ───────────────────────────────────────▶ cleared
//	 │  ▲ │                                            │ ▲
//	 │  │ └─ a URL that cannot be used ─▶ unusable ────┼─┘
//	 │  └────── a URL that can be used ──────┴─────────┘
//	 │ 410, or failing for 5 days (walhook); an operator; the account
//	 ▼
//	disabled ── enabled; or a new URL, where walhook disabled it ──▶ active
//	   └─ no URL, or one that cannot be used ──▶ cleared, unusable
//
// A new URL enables an endpoint that walhook disabled. It does not enable one that an operator
// or the account disabled: who disabled it, and why, survives the time without a usable URL
// and applies to the next one. A hold of an operator
// covers a host or a whole account (holds.go): it disables what it covers, and also what the
// account sets later. An operator's word lies over that of the account or walhook, which is
// in force again when it ends (also_disabled_by).
//
// An endpoint that is not active is held: its events stay until retention ends. A
// sender treats an active endpoint as unusable if it cannot read what is stored of it, such as
// its secret ([Endpoint]). The end of an account changes no state: its endpoint still
// delivers what was appended, and gets nothing new.
//
// The state of an endpoint's lane is a [LaneStatus]; [LaneFacts] computes it, for the metric,
// status, endpoints and the API. Its machine is drawn at [LaneStatus].
//
// # What happens on failure
//
//   - The database is away: every call returns its error. The publisher acknowledges nothing
//     to the source; senders stop at what they can still settle.
//   - The server rolls an append back (deadlock, ended session, timeout): the same batch is
//     routed and committed again, up to five times.
//   - The answer to a COMMIT is lost: nobody knows whether it is stored. The publisher takes
//     over again and reads the position.
//   - The outbox lacks what was stored last, since its server failed over to a standby that had
//     not received it: an append is refused (commit.go, followsSQL), and the publisher takes
//     over again.
//   - The outbox is on another timeline than was read, since its server failed over or was
//     restored: [ErrMoved] (timeline.go). Publisher and sender read everything anew.
//   - Another publisher or sender took over: [ErrFenced], [ErrLeaseLost].
//   - One item cannot be stored or read: its loop halves the batch until the item is alone,
//     sets it aside with a reason, and continues with the rest.
//
// # Retention
//
// [Store.Maintain] creates partitions two ahead and drops old ones. Before it drops a partition
// of the event log, what is undelivered in it becomes a dead letter: the sender that holds the
// lane makes it ([Session.Expire]), or Maintain does where no sender holds the shard.
//
// # Where to look
//
//	what one append stores, in which order           plan_write.go, planWrite
//	when a batch is tried again, or in parts         append.go, Append and appendIsolated
//	who is the publisher, where it resumes           publisher.go, TakeOver
//	what a take-over reads, for how long             load.go, scan.go
//	what the publisher reads for a batch             view.go
//	what a sender gets of an endpoint                endpoint.go, scanEndpoint
//	what package admin may use                       access.go, Access
//	how a stale writer is refused                    transaction.go, fence
//	how an event is stored                           event.go, eventRow; rows.go
//	which state an endpoint gets                     endpoint_state.go, stateOfURL
//	whom a hold covers                               holds.go, HoldTx and ReleaseTx
//	what a sender reads, and up to which bound       tail.go, Tail and DueRetries
//	how the events of one endpoint are read          endpoint_log.go, OfEndpointSQL
//	what it gets from memory instead                 fresh.go, fresh.tail
//	what a settlement stores                         settle.go, Settle
//	how an event becomes a dead letter               dead_letter.go, deaths and bury
//	who owns a shard                                 session.go, Rebalance
//	what a new owner of a lane starts from           handover.go, Save
//	when partitions are made and dropped             partitions.go, MakePartitions and dropEventPartitions
//	what becomes of undelivered events in them       expire.go, expireBefore and Expire
//	what a loop does with a bad item                 isolate.go, loops
//	when a day ends, when its counts are sent        daily.go, endReachedDays and sendDay
//	when events of the inbox are appended            inbox.go, Run
//	how the backlog is measured                      metrics.go, measure
//	what is recorded of the source                   source.go
//	what a failover of the outbox changes            timeline.go
//
// # Its packages
//
//	route      who gets an event: the plan of one transaction
//	admin      what the API and the operator's commands read and change, by [Store.Access]
//	seal       encrypts secrets, and user name and password of URLs
//	address    reads URLs and hosts of receivers
//
// # What it does not do
//
// It does not send, and it does not read the source. It does not decide who gets an event;
// package route does.
package outbox
