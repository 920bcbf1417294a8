// Package endtoend holds the tests that drive a running walhook: its binary, in
// processes of their own, between a real PostgreSQL and real receivers. It has
// no code of its own.
//
// # How a test sees walhook
//
//	carrier's tables ──▶ walhook setup, run ──▶ receivers that judge
//	                       │   ▲
//	      status, doctor, endpoints, API, /metrics, the log
//
// TestMain builds cmd/walhook once, under the race detector where the tests are.
// A test starts it with startChild, or runs one command to its end with walhook
// or mustRun. What it learns of it is what an operator or an account can: exit
// statuses, output, the API, metrics, log lines, deliveries and the tables that
// docs/ARCHITECTURE.md documents. So the tests import no package that walhook is
// made of, but for the words of doctor --json, and internal/shape keeps it so.
//
// # Where to look
//
// The name of a file begins with its topic:
//
//	child, wait, world  how walhook is built, started and waited for
//	alerts, metrics     what Prometheus is told, and which alerts fire by it
//	browser             the portal's pages, in a real browser
//	chaos               everything breaks at once, from a seed
//	doctor              each thing that can be wrong, and that its fix fixes it
//	fleet, isolation    several processes; what one account costs the others
//	held, outage        what cannot be sent now, and whom that costs anything
//	hooks, platform     the bodies of the documented events
//	run, start, status  one command each
//	model               random histories: what arrives, applied, is the source
//	routes              made-up requests to every route of the API
//
// # Flags
//
// Without flags each test is short, and its bounds leave room for a machine that
// has other things to do. flags_test.go has the flags for the long runs.
package endtoend
