// Package cdc reads the write-ahead log (WAL) of a carrier's database by logical
// replication and hands its changes, in commit order, to a store.
//
//	walsender ──▶ stream: receive, decode ──▶ pending batch ──▶ Store.Append
//	    ▲              │ asks                                      │
//	    │              ▼                                           │
//	    │         cdc/source: tables and types, as they were       │
//	    └──────────── feedback: only what is committed ◀───────────┘
//
// # What it promises
//
// Every change after the stored position reaches the store once and in order, or
// [Reader.Run] returns an error. A gap in the WAL is a [source.GapError], never a
// silent skip. The reader reports a position to the source only after the store has
// committed it, an idle advance included.
//
// The reader decodes a change by the shape that its table had at that time. Where that
// is unknown, Relation.Unknown says so; the reader does not guess.
//
// # Goroutines
//
// One goroutine owns the replication connection (stream.go): it receives, decodes
// (decode.go, change.go, relation.go) and answers keepalives, also while the store
// is blocked; once the batch is full it stops receiving, so memory stays bounded. A
// second one appends: while one append commits, the next batch fills (batch.go). Two
// more observe the source over sessions of their own (observe.go): one the slot and
// the publication, the other the catalog's tables.
//
// # States of a reader
//
//	            ┌───────── slot is free ────────┐
//	Connecting ─┤                               ▼
//	   ▲   ▲    └─ slot is in use ─▶ Standby ─▶ Reading ─▶ Run returns: a gap, a fault
//	   │   │                                     │  │
//	   │   └──────── connection lost, backoff ───┘  └─ the same transaction fails 3 times
//	   └──────────── every 5 minutes ─── Unreadable ◀─┘
//
// # What happens on failure
//
// After a lost connection, or while the store is away, the reader connects again with
// jittered backoff. It resumes from the stored position and skips what is stored. A
// message that cannot be decoded five times ends the reader. A transaction that the
// server cannot send stops the stream until an operator skips it by its position
// (trouble.go).
//
// # What it does not do
//
// The package does not prepare, examine or clean up a source: package source does. It
// knows nothing of accounts' URLs, events or deliveries.
package cdc
