// Package route decides which endpoints get which events for a batch of changes, and what
// else the outbox stores about them. It is a pure computation: it reads no database and
// changes nothing but its result. The same view and batch always give the same plan, to the
// byte.
//
//	            [View] stored state, as far as routing needs it
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
//	            │          endpoints, ended accounts    ▶ rolled back: drop the plan,
//	            │          owners, parents, columns       route the batch again
//	            │          sums and ends of days
//	            │          unrouted, counters, notes
//	            ▼
//	 change ─▶ record ─▶ old owner, new owner ─▶ recipients ─▶ deliver ─▶ event
//	            │                                    │            └─▶ sum of a day
//	            └─▶ account: URL, secret,            └─▶ the account's own endpoint, its
//	                parent, end                          webhooks, those of parent accounts
//
// # What it promises
//
// A change sees every earlier change of its batch, and nothing of a batch that was not
// committed. Route reads the plan's own state first and falls back to the view; it never
// changes the view. [View.Apply] does, and the publisher calls it after the COMMIT only.
//
// Every event of a change has a webhook-id that depends on the change alone, not on the
// subscriptions.
//
// An event carries the id and revision of its endpoint as the transaction sets them. When a
// batch changes an endpoint, the plan holds a copy of it, and events routed before the
// change go to that copy.
//
// # How a batch is routed
//
// The publisher reads the owners and account columns that the batch needs and the caches
// lack, in one query each, and the clock if a day may end. Route then takes the changes in
// stream order:
//
//   - An INSERT or UPDATE of the account table first changes the account: URL, secret,
//     parent, columns. A DELETE ends the account last, after the row's own event.
//   - The old owner and the new owner decide the events: update, insert, delete, or, for a
//     move, a delete for the one account and an insert for the other.
//   - An owner is the row's own owner column, or the account of the parent record. A record
//     that is owned through another keeps the account that it was last sent to.
//   - Recipients are the account's own endpoint (record feed and results only), its webhooks
//     and those of its parent accounts that include sub-accounts, each if its filters match.
//   - A recipient with daily delivery gets no event; the plan adds to its sum instead.
//
// # Who makes plans
//
// [Route] makes them from changes, [RouteMade] from rows that a resync or the end of a gap
// sends, [RouteInbox] from events that no change made, [EndDays] from days that have ended.
// The publisher commits all of them in the same way.
//
// # Parts of one transaction
//
// If the server refuses to store a change, the publisher routes the batch in parts behind
// savepoints. A [Part] begins with the state of the previous one, and Route looks ahead into
// the whole batch, so the parts together have the result of the whole. [Depth] says how much
// of the one bad change is stored.
//
// # What happens on failure
//
// Route cannot fail. A change that it cannot route is [Unrouted] with a [Reason], and
// counted. If the transaction fails, nothing needs to be undone: the publisher drops the plan.
//
// # Where to look
//
//	who owned a record, who owns it now, moves       record.go
//	who the recipients of an event are, filters      event.go, recipientsOf and wants
//	what a change of an account's row does           account.go
//	which reason an unrouted change has              refuse.go, plan.go
//	emitted events and async results                 emitted.go
//	events of rows that no change sent               made.go
//	derived events and the hook "object"             derived.go
//	when a day ends, what it counts                  daily.go, calendar.go
//	what one transaction writes                      plan.go
//	what routing needs to know                       view.go, need.go
//
// # What it does not do
//
// It does not log (a [Note] is written after the COMMIT), retry, read or wait. One goroutine
// at a time uses a View.
package route
