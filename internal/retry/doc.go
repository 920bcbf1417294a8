// Package retry holds what loops share that call something which may be away: how
// long they wait between two tries, and when they log that it is away.
//
//	loop ── call fails ──▶ Backoff.Next: min, 2·min, … max, each ± 20 %
//	  │                    Caller.Failed: "outbox unavailable, retrying", once a minute
//	  └─── call answers ─▶ Caller.Answered: "outbox available again", with its duration
//
// An [Outage] belongs to one thing that several loops call: it begins with the first
// caller that fails and ends when no caller fails. A loop with words of its own uses
// a [Reminder]. Each loop decides which errors it retries; this package calls
// nothing.
package retry
