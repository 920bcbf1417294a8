// Package pgsession opens every connection of this repository to a PostgreSQL.
//
//	URL ─▶ [Adapt] ─▶ configuration ─▶ connect ─▶ who answers? ─▶ SET ─▶ the caller's first statement
//	       libpq's words that                     [PoolerError]   search_path, jit, [Use]
//	       pgx has no place for
//
// It promises that no name without a schema reaches what somebody else has made:
// only pg_catalog is searched, and pg_temp last, where it shadows nothing
// (PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions
// Safely). Whoever may create in public, or in the schema of walhook's role, has
// none of his functions and operators called.
//
// Settings are set after connecting and not in the start-up message, which
// connection poolers refuse or drop. Before the first of them is set one
// question is asked, whose names have their schema: whether the server itself
// answers, or a pooler, by the number of the process. A pooler that keeps a
// session for each of its clients is as good as the server. One that lends them
// by transaction is refused with a [*PoolerError]: settings, locks and prepared
// statements would be lost between two statements, and reach others.
//
// A caller makes a configuration for each connection, so that what files say now
// counts: passwords, certificates, services.
//
// An error of connecting has its cause first ([Reason]); [IsRefused] tells those
// that somebody has to correct from an outage that passes.
//
// It does not guard against casts between types of others: they are found
// without a path, by their types alone.
//
// A test (internal/shape) forbids connections that are opened elsewhere.
package pgsession
