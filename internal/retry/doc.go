// Package retry is what loops have in common that call something which may be
// away: how long they wait between two tries, and what the log says of it.
//
//	loop ── call fails ──▶ Backoff.Next: min, 2·min, … max, each ± 20 %
//	  │                    Caller.Failed: "outbox unavailable, retrying", once a minute
//	  └─── call answers ─▶ Caller.Answered: "outbox available again", with its duration
//
// An [Outage] is of one thing, whoever calls it: it begins with the first caller
// that fails and ends when none does. What may be tried again is the loop's to
// say; nothing here calls anything.
package retry
