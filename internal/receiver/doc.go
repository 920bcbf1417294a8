// Package receiver has the receivers of the demo and the tests, and the referee that compares
// what they got with what the carrier's ledger expects.
//
//	walhook ──POST──▶ Server ──[]Delivery──┐
//	                                        ├─▶ Verify ──▶ Report
//	carrier's ledger ────[]Expected────────┘
//
// # What it promises
//
// A [Server] answers for many accounts, each by its [Behaviour]: healthy, slow, flaky, hanging,
// gone. It verifies every signature with the official Standard Webhooks library. Of every
// request it keeps a short [Delivery], not the bytes. [Refuse] returns an address that refuses
// connections.
//
// [Verify] shares no code with walhook and knows only the envelope: it matches by account,
// record and the exact bytes of the body.
//
// # What a report counts
//
//	expected ─┬─ delivered
//	          ├─ waiting   its receiver may refuse, so the event is in retry
//	          ├─ expired   the account's URL was cleared later
//	          └─ lost      none of these: a fault, as wrong, unexpected or unordered events are
//
// # What it does not do
//
// It does not know the webhooks that the API made, nor any body but the envelope.
package receiver
