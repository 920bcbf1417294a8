// Package carrier is a simulated phone carrier for tests and the demo: its tables, activity
// over all of them, and a ledger of every event that walhook must deliver.
//
//	Activity ──commits──▶ carrier tables ──WAL──▶ (walhook)
//	                           │ row triggers
//	                           ▼
//	                    schema ledger ──Read──▶ []Expected ──▶ the referee
//
// # What it promises
//
// The ledger shares no code with walhook. Row triggers apply the rules of docs/CONTRACT.md §1
// and §2 in SQL, and PostgreSQL's own to_json writes the bytes. The transaction of a change
// also writes its ledger row, so after any crash the ledger expects exactly the events of
// committed changes. A trigger locks the owners and accounts that it reads, so the ledger's
// order is the commit order.
//
// [Seed] fills the tables before walhook's initial snapshot: its rows have owners and are not
// events. [Activity] makes the same choices for the same seed; the server decides how its
// transactions interleave.
//
// # What happens on failure
//
// Activity continues after a crash of the server. If the answer to a COMMIT is lost, the ledger
// shows whether the transaction was committed.
//
// # What it does not do
//
// The ledger does not cover what the contract leaves open: unusable URLs, webhooks that the API
// made, TRUNCATE.
package carrier
