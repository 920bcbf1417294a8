// Package memory keeps an event log in memory: events, settlements, retries,
// dead letters, lanes and leases, with the promises of package outbox.
//
//	log := memory.New(endpoints...)
//	log.Append(events...)
//	session := log.Join("a sender", 10*time.Second, nil)
//
// Tests of the sender use it to control the order of steps and to let hours pass,
// which PostgreSQL does not allow. It passes the cases of package outboxtest, as
// outbox.Session does on PostgreSQL, so what a test finds here holds there.
//
// It uses package time's clock, which testing/synctest replaces. Each call is atomic
// and sees all earlier ones. Nothing survives the process. A call fails only when the
// lease has ended; a test that needs other errors wraps the session.
//
// It is for tests only: a test in internal/shape keeps it out of the programs.
package memory
