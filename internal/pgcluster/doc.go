// Package pgcluster runs a throwaway PostgreSQL server: for the demo, for
// tests and for benchmarks.
//
//	Find ──▶ Binaries ──Start──▶ Cluster ──Stop──▶ nothing left
//	(machine, cache, fetch)      │    ▲
//	                           Kill  Restart
//
// [Find] looks for server binaries on the machine and fetches them when there
// are none; what was fetched stays in a cache folder. [Start] makes a cluster
// in a temporary folder with wal_level=logical, a generated password, and a
// TCP port on 127.0.0.1. Started as root, the server runs as postgres or
// nobody, since PostgreSQL refuses root.
//
// Nothing is left behind. [Cluster.Stop] removes the folder. When this process
// dies first, however it dies, the kernel ends the server (Linux) and a small
// shell that waits for our death ends it elsewhere and removes the folder.
// What even that misses (a power cut), the next Start sweeps: a folder whose
// owner no longer holds its lock is stale.
//
// The data is worth nothing and is never protected: Stop does not wait for
// slow clients. Windows is not supported.
package pgcluster
