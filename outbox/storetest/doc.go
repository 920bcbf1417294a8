// Package storetest is what the tests of outbox and of outbox/admin share: an outbox
// that a test has to itself, in a real PostgreSQL, and a publisher with the source's
// end of the stream in the test's hands.
//
//	World   a database that is an outbox, and questions to its tables
//	feed    Snapshot, Append: changes as a reader hands them over
//
// It does not import outbox, whose own tests use it: what it needs of a store it is
// given. The rows and the small carrier are those of outbox/route/routetest. A database
// is emptied and used again by the next test, unless the test failed or asked for one
// alone.
//
// It is for tests: internal/shape keeps it out of the programs.
package storetest
