// Package memory keeps an event log in memory: events, settlements, retries,
// dead letters, lanes and leases, with the promises of package outbox.
//
//	log := memory.New(endpoints...)
//	log.Append(events...)
//	session := log.Join("a sender", 10*time.Second, nil)
//
// Tests of the sender stand on it where PostgreSQL would hide what they are
// about: the order of steps, and hours of time. It passes the cases of package
// outboxtest, as outbox.Session does on PostgreSQL, so what a test finds here
// holds there.
//
// Its clock is package time's, which testing/synctest replaces. Each call is
// atomic and sees all earlier ones. Nothing survives the process, and no call
// fails but for a lease that is over: a test that wants faults wraps the session.
//
// It is for tests alone: package internal/shape keeps it out of the programs.
package memory
