// Package chaos breaks networks on purpose, for tests.
//
//	walhook ──▶ Proxy ──▶ PostgreSQL, receivers
//	              ▲ Set(Weather), Reset
//
// A [Proxy] relays TCP between two parties on this machine. Its [Weather] says how bad the
// network is: slow, narrow, silent, or refusing. A test changes it at any moment, also for open
// connections.
//
// # What it promises
//
// The proxy never changes, loses or reorders the bytes of a connection that stays open. After a
// silence it sends the bytes that it held back. After a reset both sides get an error.
package chaos
