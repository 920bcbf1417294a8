// Package carrier is a phone carrier to try walhook on: its tables, simulated
// activity over all of them, and a ledger of what must be delivered.
//
//	Activity ──commits──▶ carrier tables ──WAL──▶ (walhook)
//	                           │ row triggers
//	                           ▼
//	                    schema ledger ──Read──▶ []Expected ──▶ the referee
//
// The ledger is the source's own account, made without any of walhook's code:
// row triggers apply the rules of docs/CONTRACT.md §1 and §2 in SQL and let
// PostgreSQL's own to_json write the bytes. A ledger row is written in the
// transaction of the change that it stands for, so after any crash exactly the
// events of committed changes are expected. It locks the edges and accounts
// that it goes by, so its order is the commit order, whoever writes to the
// tables.
//
// [Seed] fills the tables before the publisher's first snapshot: its rows have
// owners but are not events. [Activity] draws what it does from its seed; how
// its transactions interleave is the server's affair. It goes on through a
// crash of the server: a transaction whose outcome it does not learn is settled
// by the ledger.
//
// The ledger does not know what walhook is not asked to know: URLs that cannot
// be used, webhooks made by the API, TRUNCATE.
package carrier
