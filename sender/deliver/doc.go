// Package deliver makes one attempt at delivering an event: it knows nothing of
// lanes, schedules and the outbox's tables.
package deliver
