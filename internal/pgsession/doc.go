// Package pgsession opens every connection of walhook to a PostgreSQL.
//
//	URL ─▶ [Adapt] ─▶ configuration ─▶ connect ─▶ who answers? ─▶ SET ─▶ the caller's first statement
//	       libpq's parameters                     [PoolerError]   search_path, jit, [Use]
//	       that pgx lacks
//
// # What it promises
//
// A name without a schema is found in pg_catalog only; pg_temp is last, where it shadows
// nothing (PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions Safely). So
// walhook never calls a function or operator that somebody created in public or in another
// schema of the search path.
//
// The package sets settings after connecting and not in the startup message, because poolers
// refuse or drop them there. Before the first SET it finds out, by the backend's process id,
// whether the server itself answers or a pooler.
//
// The caller builds a configuration for each connection, so that changed files take effect:
// passwords, certificates, services.
//
// # What happens on failure
//
// A pooler that keeps one session per client is as good as the server. A pooler that lends
// sessions per transaction is a [*PoolerError]: settings, locks and prepared statements would
// be lost between two statements, or reach other clients.
//
// [Reason] puts the cause of a failed connection first. [IsRefused] distinguishes an error that
// somebody has to fix (role, password, certificate) from an outage that passes.
//
// # What it does not do
//
// It does not guard against casts between types of other users: the server finds these by
// their types, without the search path.
//
// A test in internal/shape forbids connections that are opened elsewhere.
package pgsession
