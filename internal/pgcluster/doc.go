// Package pgcluster runs a throwaway PostgreSQL server for the demo, tests and benchmarks.
//
//	Find ──▶ Binaries ──Start──▶ Cluster ──Stop──▶ nothing left
//	(machine, cache, fetch)      │    ▲
//	                           Kill  Restart
//
// # What it promises
//
// [Find] looks for server binaries on the machine and fetches them if there are none; a cache
// folder keeps them. [Start] creates a cluster in a temporary folder, with wal_level=logical, a
// generated password and a TCP port on 127.0.0.1. When root starts it, the server runs as
// postgres or nobody, because PostgreSQL refuses root. [NewTemplate] keeps what initdb makes,
// for a process that starts many clusters: Start copies it.
//
// # States of a cluster
//
//	running ── Kill, Shutdown ─▶ down ── Restart ─▶ running
//	   └──────────── Stop ─────────┴─▶ removed
//
// # What happens on failure
//
// Nothing is left behind. [Cluster.Stop] removes the folder. If this process dies first, the
// kernel ends the server (Linux), or a small shell that waits for this process ends it and
// removes the folder (elsewhere). The next Start removes what even that missed: a folder whose
// lock nobody holds.
//
// # What it does not do
//
// It does not protect the data, and Stop does not wait for clients. It does not support
// Windows.
package pgcluster
