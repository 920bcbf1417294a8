// Package pgtest gives tests a real PostgreSQL, with nothing to prepare.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
//	db := pgtest.Database(t)             // an empty database of the test's own
//	db.Connect(t)                        // a connection to it
//	crash := pgtest.NewCluster(t, pgcluster.Options{})  // a server to kill
//
// # What it promises
//
// All tests of one binary share one server, which the first of them starts, with fsync off.
// Each test has a database of its own, so tests may run in parallel. They share the server:
// creating a logical slot waits for every transaction that runs on it. A test that holds a
// transaction open for long, or stops, kills or slows the server, uses a cluster of its own
// ([NewCluster]).
//
// Without [Main] the server ends with the process.
package pgtest
