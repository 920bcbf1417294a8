// Package source is all that is asked of a carrier's database, and all that is
// changed in it, besides the stream itself.
//
//	               ┌── PlanSetup ─▶ Plan.Apply ─▶ Snapshot     before the first start
//	Config ────────┼── Introspector, Config.Check, Identify    the reader, package cdc
//	(one source)   ├── TableRepair                             while it reads
//	               ├── Examine                                 walhook doctor
//	               └── PlanTeardown ─▶ TeardownPlan.Apply      when walhook leaves
//
// What setup plans, what the reader refuses or repairs and what doctor prints come
// from the same functions: they cannot disagree on a table or a statement.
//
// # What it promises
//
// Config.Check compares what is stored with the source before anything is read:
// system identifier, timeline, slot, WAL end, publication, catalog. What does not
// fit is a [Fault], which says how to fix it, or a [GapError], which is never
// skipped in silence.
//
// Setup and repair note each change of a publication or a replica identity with
// [Changes] before they make it, so that teardown restores what was there. Nothing
// else of the carrier's is ever changed.
//
// [Snapshot] creates the slot and stores accounts and owner edges as they are at its
// consistent point, with that point as the first position, atomically.
//
// Every session is pinned: search_path, DateStyle and whatever else would change how
// values are printed. A statement that waits for a lock of the carrier's is bounded.
//
// # States of a source
//
//	nothing ─ PlanSetup, Apply ─▶ prepared ─ Snapshot ─▶ set up ─ Check passes ─▶ read
//	   ▲                             ▲  interrupted:        │ ▲
//	   │                             └─ it starts over ─────┘ └─ a gap: setup --accept-gap
//	   └──────────────────────────── PlanTeardown, Apply ────────┘
//
// # What happens on failure
//
// A server that cannot be reached, or is starting, is an error that [IsUnreachable]
// knows: it passes. A wrong password, a missing right or a pooler is a Fault: it
// does not. An interrupted initial snapshot starts over. A step of teardown that
// the server refuses is reported, and the others are made.
//
// # What it does not do
//
// It does not decode the stream, keeps no history of tables and stores nothing: the
// package cdc and its Store do. It never takes the slot of another consumer.
package source
