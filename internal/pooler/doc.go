// Package pooler is a connection pooler for tests. It behaves as PgBouncer, Odyssey, pgcat and
// managed proxies do, as far as a client can notice.
//
//	client ──▶ pooler (loopback, its own process ids) ──▶ a session of the server
//	           session pooling:      one session for as long as the client stays
//	           transaction pooling:  a session for one transaction at a time
//
// It accepts few startup parameters, and it refuses or degrades replication connections, as
// its options say ([Replication]).
package pooler
