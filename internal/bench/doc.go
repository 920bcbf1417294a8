// Package bench measures walhook on one machine, with nothing to prepare.
//
//	carrier ──▶ PostgreSQL ──▶ walhook run ──POST──▶ receivers
//	(this process)  (throwaway)   (a process)            (a process, counts)
//
// Everything is a process of its own, so that CPU time and memory are its own:
// PostgreSQL (fsync and synchronous_commit on, its settings otherwise the
// defaults), walhook as an operator runs it, the receivers, and the ceilings:
// plain POSTs by net/http, and walhook's reader into a store that only counts.
//
// The receivers count by webhook-id and by record: a run in which a record is
// missing, is somebody else's or is not what PostgreSQL says of the row is an
// error, not a figure. Times are those of the machine's clock: when a commit
// happened, PostgreSQL says; when it was answered, the receivers.
//
// Each repetition has databases of its own.
package bench
