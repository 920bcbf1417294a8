// Package pgtest gives tests a real PostgreSQL, with nothing to prepare.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
//	db := pgtest.Database(t)             // an empty database of the test's own
//	db.Connect(t)                        // a connection to it
//	crash := pgtest.NewCluster(t, pgcluster.Options{})  // a server to kill
//
// All tests of one binary share one server, started by the first that asks,
// with fsync off. Each test has a database to itself, so tests may run in
// parallel; what they still share is the server: making a logical slot waits
// for every transaction that runs on it. A test that holds a transaction open
// for long, or that stops, kills or slows the server, takes a cluster of its
// own with [NewCluster].
//
// Without [Main] the server is ended when the process is.
package pgtest
