// Package outboxtest holds what every event log promises to the sender, as cases
// that run on any of them.
//
//	func TestLog(t *testing.T) {
//		outboxtest.Run(t, func(t testing.TB) outboxtest.Harness { return newHarness(t) })
//	}
//
//	       sender.Log, sender.Session             outboxtest.Run
//	sender ──────────┬──────────────────────────────┐
//	                 ▼                              ▼
//	   outbox.Session on PostgreSQL   memory.Log   another log
//
// Two logs pass it: outbox.Session on PostgreSQL, which walhook runs on, and
// package memory, which the sender's own tests run on. So those tests stand on
// what PostgreSQL does, and not on somebody's idea of it.
//
// # Another log under the sender
//
// An existing distributed log can take the place of PostgreSQL's:
//
//  1. Write types that are a [sender.Log] and a [sender.Session]. The log itself
//     may be elsewhere; leases, settlements and lanes want one store that commits
//     a batch as one.
//  2. Write a [Harness] for it: an empty log for each case, a way to append, and
//     what a case has to look at or to bring about beside what a sender does.
//  3. Call [Run] until every case passes. A case that cannot hold is a promise
//     that the sender relies on: it is the sender that has to change first.
//  4. Hand the log to sender.New.
//
// What the suite asks: ids rise in the order of appends, and a reader of "id > n"
// misses nothing; a batch of settlements is stored whole or refused; what is
// settled twice is settled once; a record's oldest event in retry is due and the
// later ones wait; a shard has one owner, and one whose lease is over writes
// nothing; a new owner starts from what was saved and finds what was settled
// since; nothing is trimmed that is neither delivered nor a dead letter.
//
// What it does not ask: how the log survives a crash, how fast it is, and what it
// does with damaged rows. Those tests are each log's own.
//
// The cases are believed because TestBreaks turns each of them red: it breaks the
// log in memory in one promise after the other.
package outboxtest
