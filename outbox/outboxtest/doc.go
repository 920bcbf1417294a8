// Package outboxtest is the conformance suite of event logs: it holds, as test cases,
// what every event log promises to the sender.
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
// Two logs pass it: outbox.Session on PostgreSQL, which walhook runs on, and package
// memory, which the sender's own tests run on. So the sender's tests use a log that
// behaves like PostgreSQL's.
//
// # Another log under the sender
//
// An existing distributed log can replace PostgreSQL's:
//
//  1. Write types that implement [sender.Log] and [sender.Session]. The log itself
//     may be anywhere. Leases, settlements and lanes need one store that commits a
//     batch atomically.
//  2. Write a [Harness] for it: an empty log for each case, a way to append, and what
//     a case needs to inspect or to cause beside the sender's own calls.
//  3. Call [Run] until every case passes. The sender relies on every case: if one
//     cannot pass, change the sender first.
//  4. Pass the log to sender.New.
//
// # What the suite checks
//
//   - Ids rise in the order of appends, and a reader of "id > n" misses nothing.
//   - A batch of settlements is stored whole or refused whole. A batch that is settled
//     twice counts once.
//   - A record's oldest event in retry is due, and the later ones wait.
//   - A shard has one owner. A sender whose lease has ended writes nothing.
//   - A new owner starts from the saved state and finds what was settled since.
//   - The log trims an event only after it is delivered or a dead letter.
//
// # What it does not check
//
// It does not check how the log survives a crash, how fast it is, or what it does with
// damaged rows. Each log has its own tests for that.
//
// TestBreaks shows that the cases work: it breaks one promise after the other in the
// log in memory and expects a case to fail.
package outboxtest
