// Package migrations holds the SQL of the outbox, embedded in the binary: the tables,
// CHECK constraints and functions of the PostgreSQL schema walhook.
//
//	001_outbox.sql … NNN_….sql ──embed──▶ Files ──outbox.Migrate (tern)──▶ schema walhook
//	                                                                      schema_version: NNN
//
// # What it promises
//
// The files are numbered without gaps and run in that order, each in a transaction of
// its own. The number of the last one is in walhook.schema_version ([VersionTable]).
// Migrations go forward only. A file that has landed is never edited; a later file
// fixes what it got wrong.
//
// # What is here
//
// Rules of state are named CHECK constraints. The fences are SQL functions:
// walhook.assert_epoch raises WH001 for a publisher that was replaced,
// walhook.assert_append also WH003 where webhooks have changed that it does not know, and
// walhook.assert_sender raises WH002 for a sender whose lease has ended. All raise WH004 for
// a process that has read another timeline of the outbox than the present one.
//
// # What happens on failure
//
// A file that fails leaves the database at the version before it. The next
// `walhook setup` continues from there. `walhook run` refuses an outbox whose version
// differs from the binary's.
//
// # What it does not do
//
// It runs nothing: outbox.Migrate runs the files and then makes partitions. It holds no
// queries; each query is a constant beside the Go method that runs it.
package migrations
