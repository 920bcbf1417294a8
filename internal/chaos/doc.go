// Package chaos breaks networks on purpose, for tests.
//
//	walhook ──▶ Proxy ──▶ PostgreSQL, receivers
//	              ▲ Set(Weather), Reset
//
// A [Proxy] is a TCP relay between two parties of this machine. Its [Weather]
// says how bad the network is: slow, narrow, silent, or refusing. Weather
// changes at any moment and for the connections that are open, too.
//
// What it relays it never changes, loses or reorders: a connection that lives
// on delivers every byte, as TCP does. After a silence the bytes that were
// held go on; after a reset both sides know.
package chaos
