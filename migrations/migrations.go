package migrations

import "embed"

// Files are the migrations, in order of their numbers.
//
//go:embed *.sql
var Files embed.FS

// VersionTable is where tern keeps the version that a database is at.
const VersionTable = "walhook.schema_version"
