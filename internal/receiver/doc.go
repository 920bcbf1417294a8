// Package receiver is the other end of walhook for the demo and the tests:
// HTTP receivers that behave as told, and the referee that compares what they
// got with what the carrier's ledger expects.
//
//	walhook ──POST──▶ Server ──[]Delivery──┐
//	                                        ├─▶ Verify ──▶ Report
//	carrier's ledger ────[]Expected────────┘
//
// A [Server] answers for many accounts, each by its [Behaviour]: healthy, slow,
// flaky, hanging, gone. It checks every signature with the official Standard
// Webhooks library and keeps a short [Delivery] of every request, not its
// bytes. [Refuse] gives an address that refuses connections.
//
// [Verify] knows nothing of walhook but the envelope: it matches by account,
// record and the exact bytes of the body.
package receiver
