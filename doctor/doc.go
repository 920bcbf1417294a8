// Package doctor has the vocabulary of `walhook doctor`: findings, their fixes, and the checks
// that both databases get.
//
//	cdc/source ─────┐ (the source, the slot, the publication, the catalog)
//	outbox ─────────┼──▶ Report: a Finding for each check ──▶ walhook doctor
//	sender/deliver ─┘ (the egress guard)
//
// # What it promises
//
// Every check of a [Report] yields exactly one [Finding]: ok, warning, failed, or skipped with
// the reason. So a check that was not made never looks like one that passed.
//
//	(nothing) ─ Skip ─▶ skipped ─ OK ─▶ ok ─ Warn ─▶ warning ─ Fail ─▶ failed
//
// A check that gets several results keeps the worst one, and the evidence and steps of all
// bad ones. A finding that is not ok says in its evidence what is wrong, and in its steps the
// exact statement, command or setting that fixes it.
//
// A [Session] is read only. It takes no lock except those of reading, and its statements time
// out after five seconds, a wait for a lock after half a second.
//
// # What happens on failure
//
// A database that does not answer is a failed finding with [ConnectSteps]; the checks that need
// it are skipped. A check whose query fails is a warning with the error ([Session.Unseen]).
//
// # Where to look
//
//	what a finding is                             finding.go, report.go
//	checks of every server: version, TLS, clock   server.go
//	transactions that are open for too long       transactions.go
//	the checks source.*                           package cdc/source
//	the checks outbox.*                           package outbox, doctor*.go
//	the checks egress.*                           package sender/deliver, egress.go
//	the checks config.*, and printing             package cmd/walhook, doctor*.go
//
// # What it does not do
//
// It fixes nothing, and it knows nothing of slots, catalogs or events.
package doctor
