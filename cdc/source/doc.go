// Package source holds everything that walhook asks of a carrier's database, or changes
// in it, except the stream itself.
//
//	               ┌── PlanSetup ─▶ Plan.Apply ─▶ Snapshot     walhook setup
//	Config ────────┼── Introspector, Config.Check, Identify    the reader, package cdc
//	(one source)   ├── TableRepair                             while it reads
//	               ├── Examine                                 walhook doctor
//	               └── PlanTeardown ─▶ TeardownPlan.Apply      walhook teardown
//
// Setup, the reader, the repair of tables and doctor use the same functions. So they cannot
// disagree about a table or a statement.
//
// # What it promises
//
// [Config.Check] compares the stored position with the source before the reader reads:
// system identifier, timeline, end of the WAL, slot, catalog, publication. It returns a
// [Fault], which says how to fix it, or a [GapError]. Nobody skips a gap silently.
//
// Setup and repair record each change of a publication or a replica identity with [Changes]
// before they make it, so that teardown can undo it. walhook changes nothing else of the
// carrier's database.
//
// [Snapshot] creates the slot. It stores the accounts, the owners of records and the
// descriptions of tables as of the slot's consistent point, with that point as the first
// position, atomically.
//
// Every session is pinned: search_path, DateStyle and every other setting that changes how
// values are printed. A statement that may wait for a lock of the carrier's has a timeout.
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
// An unreachable or starting server is an error for which [IsUnreachable] is true: the
// caller waits and tries again. A wrong password, a missing right or a pooler is a Fault:
// somebody has to act. An interrupted snapshot starts over. Teardown reports a step that
// the server refuses, and still does the others.
//
// # Where to look
//
//	what is a gap and what is a wrong setting        position.go
//	which statements setup runs, and their order     setup.go, tables.go
//	which replica identity a table gets              tables.go
//	how the slot is created with its snapshot        slot.go, snapshot.go
//	what is changed while the service runs           repair.go
//	what teardown undoes and what it leaves          teardown.go
//	what walhook reads from the system catalog       describe.go, introspect.go
//	how sessions are pinned                          config.go
//	the checks source.* of doctor                    doctor.go, doctor_slot.go,
//	                                                 doctor_publication.go, doctor_tables.go
//
// # What it does not do
//
// It does not decode the stream, keeps no history of tables and stores nothing; package cdc
// and its Store do. It never takes the slot of another consumer.
package source
