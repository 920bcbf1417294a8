// Package storetest is what the tests of outbox and of outbox/admin share: an outbox
// that a test has to itself, in a real PostgreSQL, and a publisher with the source's
// end of the stream in the test's hands.
//
//	World   a database that is an outbox, and questions to its tables
//	feed    Snapshot, Append: changes as a reader hands them over
//
// It does not import outbox, because the tests of outbox use it: a test passes in what it
// needs of a store. The rows and the small carrier are those of outbox/route/routetest. The
// next test empties a database and uses it again, unless the test failed or asked for a
// database of its own.
//
// It is for tests: internal/shape keeps it out of the programs.
package storetest
