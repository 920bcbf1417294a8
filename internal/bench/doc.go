// Package bench measures walhook on one machine, with nothing to prepare.
//
//	carrier ────────▶ PostgreSQL ──▶ walhook run ──POST──▶ receivers
//	(this process)   (throwaway)    (a process)            (a process, counts)
//
// # What it promises
//
// Each part is a process of its own, so that its CPU time and memory can be measured:
// PostgreSQL (fsync and synchronous_commit on, otherwise its defaults), walhook as an operator
// runs it, the receivers, and the ceilings, which are plain POSTs by net/http and walhook's
// reader into a store that only counts.
//
// The receivers count by webhook-id and by record. If a record is missing, belongs to another
// account or differs from PostgreSQL's own JSON of the row, the run is an error, not a figure.
//
// All times come from the machine's clock: PostgreSQL says when a commit happened, the
// receivers when they answered. Each repetition has databases of its own.
//
// # What happens on failure
//
// [Run] ends with the first error and returns no report. It stops every process that it
// started; on Linux the kernel ends them if this process dies.
//
// # What it does not do
//
// It does not compare machines or hours: only figures of one run are comparable.
package bench
