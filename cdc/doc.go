// Package cdc reads a carrier's write-ahead log by logical replication and
// hands its changes, in commit order, to a store.
//
//	walsender ──▶ Reader: receive, decode ──▶ pending batch ──▶ Store.Append
//	    ▲                                                          │
//	    └──────────── feedback: only what is committed ◀───────────┘
//
// It promises that every change after the stored position reaches the store
// once and in order, or that [Reader.Run] returns an error: a gap in the log
// is a [GapError], never a silent skip. The source is told of a position only
// after the store has committed it, an idle advance included.
//
// One goroutine owns the replication connection: it receives, decodes and
// answers keepalives, also while the store is blocked; then it stops
// receiving, so memory stays bounded. A second goroutine appends: while one
// append commits, the next batch fills. A lost connection is made anew with
// backoff, from the stored position.
//
// It also prepares a source ([PlanSetup]) and takes the first snapshot. It does
// not know accounts' URLs, events or deliveries.
package cdc
