// Package httpd serves HTTP to untrusted clients within bounds of time and of connections,
// with or without TLS.
//
//	Accept ── connections, in all and per address ──▶ TLS ──▶ header, 5 s ──▶ body, 10 s in all
//	                                                                             └─▶ Handler ──▶ each write, 10 s
//
// # What it promises
//
// No client keeps a connection by sending or reading nothing, or a byte at a time. A header, a
// body and each write end at a fixed time, however slowly they progress. A handler may take as
// long as it needs; it has bounds of its own.
//
// The number of connections depends on how many files the process may open ([Bounds]), so that
// the other parts keep their descriptors.
//
// [Certificate] reads a certificate and its key again when their files change. If the new pair
// cannot be used, the previous one stays.
//
// # What happens on failure
//
// A connection beyond the bounds gets a 503 and is closed. walhook_connections_refused_total
// counts it, and the logs mention it once a minute.
//
// # What it does not do
//
// It does not speak HTTP/2, and it does not limit requests; package api does.
package httpd
