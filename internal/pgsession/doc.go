// Package pgsession opens every connection of this repository to a PostgreSQL.
//
//	URL, config ──▶ pin ──▶ start-up message: search_path, jit ──▶ SET of both ──▶ the caller's first statement
//
// It promises that no name without a schema reaches what somebody else has made:
// only pg_catalog is searched, and pg_temp last, where it shadows nothing
// (PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions
// Safely). Whoever may create in public, or in the schema of walhook's role, has
// none of his functions and operators called. The settings go with the start-up
// message, so there is no moment before them, and once more with SET, for a
// pooler that drops what the message says.
//
// It does not guard against casts between types of others: they are found
// without a path, by their types alone.
//
// A test (internal/shape) forbids connections that are opened elsewhere.
package pgsession
