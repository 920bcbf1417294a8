// Package doctor holds the words of a check-up, and the checks that any
// PostgreSQL of ours gets.
//
//	cdc ────────┐ (the source, the slot, the catalog)
//	outbox ─────┼──▶ Report: a Finding for each check ──▶ walhook doctor
//	sender ─────┘ (the egress guard)
//
// It promises that every check of a [Report] yields exactly one [Finding]: ok,
// warning or failed, or skipped with the reason, since a check that was not
// made must not look like one that passed. A finding that is not ok says in its
// evidence what is wrong, and in its steps the exact words that fix it.
//
// It disturbs nobody: a [Session] can write nothing, takes no lock but those of
// reading, and gives up on whatever does not answer soon.
package doctor
