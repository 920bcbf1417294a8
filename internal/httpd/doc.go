// Package httpd serves HTTP to strangers within bounds of time and of
// connections, with or without TLS.
//
//	Accept ── connections, in all and per address ──▶ TLS ──▶ headers, 5 s ──▶ body, 10 s in all
//	                                                                             └─▶ Handler ──▶ each write, 10 s
//
// It promises that nobody holds a connection by sending or reading nothing, or a
// byte at a time: headers and a body each have an end by the clock, however slowly
// they go on, and so has a write that the client does not read. A handler may take
// as long as it likes, since its own bounds are its own.
//
// Connections are bounded by what the process may open ([Bounds]), so that the
// other parts keep their descriptors. One too many gets a 503 and is closed, is
// counted in walhook_connections_refused_total, and logged once a minute.
//
// A certificate is read again when its files change ([Certificate]). A pair that
// cannot be used changes nothing: the one before stays.
package httpd
