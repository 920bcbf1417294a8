// Package route decides what becomes of a batch of changes: which endpoints get
// which events, and what everybody else has to know afterwards. It is a pure
// computation. It reads no database, it changes nothing but what it returns, and
// the same view and batch always give the same plan, to the byte.
//
//	            [View] what is stored, as far as routing asks
//	              │  ▲
//	 OwnersNeeded │  │ Apply, after the COMMIT
//	ColumnsNeeded │  └────────────────────────────────┐
//	   NeedsClock ▼                                   │
//	       the publisher reads                        │
//	       what is not cached                         │
//	              │                                   │
//	              ▼                                   │
//	batch ──▶ [Route] ──▶ [Plan] ──▶ one transaction ─┘
//	            │          events, too large           ╲
//	            │          endpoints, ended accounts    ▶ rolled back: forget the
//	            │          owners, parents, columns       plan, route the batch again
//	            │          sums and ends of days
//	            │          unrouted, counters, notes
//	            ▼
//	 change ─▶ record ─▶ whose was it, whose is it ─▶ recipients ─▶ deliver ─▶ event
//	            │                                        │             └─▶ sum of a day
//	            └─▶ account: URL, secret, parent, end    └─▶ account's own endpoint, its
//	                                                         webhooks, those of parents
//
// # One batch's way
//
// The publisher asks the view what routing needs and the caches lack, and reads it
// in one query each: owners, then columns, and the clock where a day may end. Route
// then goes through the changes in stream order. Each reads the plan's own state
// first and the view where the plan says nothing, so a change sees all changes
// before it, and nothing of a batch that was not committed. An endpoint that
// changes is copied; events that were routed to it before follow to the copy, whose
// id and revision the transaction sets. Every event of a change has a webhook-id
// that depends on the change alone, whoever listens.
//
// # Who makes plans
//
// Route makes them of changes, [RouteInbox] of events that no change made,
// [EndDays] of days that are over. Whoever commits a plan does not ask who made it.
//
// # Parts of one transaction
//
// Where the server refuses to store a change, the publisher routes the batch in
// parts behind savepoints. A [Part] begins with the state of the part before it,
// and Route looks ahead into the whole batch: together the parts say what the whole
// says. Depth is how much of a change is stored that is alone at fault.
//
// # What it does not do
//
// It does not fail: what cannot be routed is [Unrouted], with a [Reason], and
// counted. It does not log: a [Note] is written once the plan is committed. It does
// not retry, read or wait. A View is used by one goroutine at a time.
package route
