// Package cdc reads the write-ahead log (WAL) of a carrier's PostgreSQL by logical
// replication. It hands the changes, in commit order, to a [Store].
//
//	walsender ──▶ stream: receive, decode ──▶ pending batch ──▶ Store.Append
//	    ▲              │ asks                                      │
//	    │              ▼                                           │
//	    │         cdc/source and history: tables as they were      │
//	    └──────────── feedback: the stored position only ◀─────────┘
//
// # What it promises
//
// Every change after the stored position reaches the store once and in order, or
// [Reader.Run] returns an error. A gap in the WAL is a [source.GapError]; the reader
// never skips one silently. The reader reports an LSN to the source as flushed only
// after the store has committed it, idle advances included.
//
// A position is (commit LSN, ordinal). The ordinal counts every change message of the
// transaction as the server streams it, before any filter of walhook. So a change
// always has the same position. That lets the reader append a large transaction in chunks,
// and resume inside it.
//
// The reader decodes a change by the shape that its table had at that time. If neither
// the source nor the store knows that shape, the relation says so (Relation.Unknown); the
// reader does not guess.
//
// Memory is bounded: a batch has at most 2,500 changes or 2 MiB, plus one chunk, and of a
// change larger than MaxMessageBytes the reader keeps only the small values.
//
// # Goroutines
//
//	receive        owns the replication connection: receives, decodes, answers keepalives
//	append         calls Store.Append; while one append commits, the next batch fills
//	watch          every 10 s: slot, publication, lag; over a session of its own
//	observeTables  every 2 s: descriptions of the tables, replica identities of partitions
//	observe        keeps the metrics of slot and source while the reader does not read
//
// The receiver stops receiving while the pending batch is full, and still answers
// keepalives. The appender never waits to fill a batch.
//
// # States of a reader
//
//	            ┌───────── slot is free ────────┐
//	connecting ─┤                               ▼
//	   ▲   ▲    └─ slot is in use ─▶ standby ─▶ reading ─▶ Run returns: a gap, an error
//	   │   │                                     │  │
//	   │   └──────── connection lost, backoff ───┘  └─ the same transaction fails 3 times
//	   └──────────── every 5 minutes ─── unreadable ◀─┘
//
// On a takeover the reader takes the slot first, then Store.TakeOver starts a new epoch,
// and then it reads the position. So the previous publisher can store nothing after that.
// [source.Config.Check] then decides whether the WAL can be continued.
//
// # What happens on failure
//
//   - Connection lost, or the store is away: the reader tries again with jittered backoff
//     (200 ms to 10 s), resumes from the stored position and skips what is stored.
//   - A message that cannot be decoded: the reader asks for it again; after five times Run
//     returns a [source.Fault].
//   - A transaction that the server cannot send: after three tries the reader records it
//     and tries again every five minutes, until an operator skips it by its position.
//   - A gap: the reader records it in the store, and Run returns it.
//
// # Where to look
//
//	which change has which position                change.go, next
//	what may be skipped on resuming                change.go, begin
//	how large a batch gets                         batch.go
//	what is reported to the source as flushed      stream.go, sendStatus
//	how an idle slot moves on                      stream.go, keepalive and advance
//	which shape of a table a change is read by     history.go, choose
//	values that an update did not touch (TOAST)    decode.go, fillUnchanged
//	what is kept of a change that is too large     shorten.go
//	when reading is tried again, and when it ends  reader.go, read; trouble.go
//	what a gap does                                reader.go, final
//	lag and the slot's metrics                     observe.go, metrics.go
//
// # What it does not do
//
// It does not prepare, examine or clean up a source; that is package source. It does not
// know accounts' URLs, events or deliveries. It does not import package outbox: [Store] is
// all that it needs of a store.
package cdc
