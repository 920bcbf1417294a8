// Package migrations holds the outbox's SQL, numbered and forward only. A file
// that has landed is never edited: what it got wrong, a later one fixes.
//
// The files are written for tern: each runs in a transaction of its own, and
// the version reached is kept in walhook.schema_version.
package migrations

import "embed"

// Files are the migrations, in order of their numbers.
//
//go:embed *.sql
var Files embed.FS

// VersionTable is where tern keeps the version that a database is at.
const VersionTable = "walhook.schema_version"
