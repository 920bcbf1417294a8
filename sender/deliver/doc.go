// Package deliver makes one attempt at delivering one event, and returns its result.
// It knows no lanes, no schedule and no table of the outbox: its callers decide when
// to try and what follows.
//
//	lane's worker ─┐                           ┌ render   the endpoint's form of the event
//	API's test ────┼─▶ Destination.Deliver ─▶  │ sign     Standard Webhooks, each secret
//	doctor's check ┘         │                 │ guard    port, then the address at dial time
//	                         ▼                 │ client   one request, at most
//	                      Result  ◀─────────── └ classify status or failure → outcome
//
// # What it promises
//
// One call of [Destination.Deliver] makes at most one request, and none once
// Config.MayBegin is false. It sends nothing to an address or port that the egress
// guard refuses, however a URL writes it and whatever its name resolves to at that
// moment. No two endpoints share a connection. A [Result] holds no secret, no
// credential and no part of the event.
//
// # What decides
//
// [Result] has an [Outcome], a reason that is a label of metrics, and the flags that
// lanes use. The HTTP status is for display: lanes never read it, so another kind of
// destination is another type with a Deliver, and the sender does not change. For
// HTTP the table is classifyResponse:
//
//	2xx                      delivered
//	410                      disable
//	429, 503                 pause, for as long as Retry-After asks
//	408, 5xx, no answer      retry; counts against the endpoint
//	other 3xx and 4xx        retry; counts against the event alone
//	URL of a GET too long    dead
//	local error              held: does not count against the endpoint
//
// The status line of the final answer decides, over HTTP/2 ":status". What follows it
// changes nothing: a header that is malformed, longer than 64 KiB or endless, a body
// that breaks off. The client reads at most 4 KiB of a body, for at most two seconds.
// It does not follow redirects.
//
// # On failure
//
// classifyError names the failure by the error and by the phase of the attempt. The
// account sees less than the operator: every failure to connect looks the same to it.
// A local error makes the attempt Held: no network, no descriptors, no resolver, no
// secret, the lease, the shutdown. An attempt ends soon after its context.
//
// # Clients
//
// [ClientWalhook] (client, conn, connPool) speaks HTTP/1.1 on the goroutine of the
// attempt, which costs less than passing each request to other goroutines, and uses
// net/http for HTTP/2. [ClientNetHTTP] is net/http for both; a gate on each connection
// keeps the promises above. Each is an http.RoundTripper, and one suite of tests runs
// on both. net/http differs in two things:
//
//   - After an interim answer (1xx) the status decides only once its header is
//     complete.
//   - net/http notices bytes that a receiver sends before a request only when its own
//     goroutine has read them. In the moment before, they count as the answer.
//     net/http logs such bytes at debug level.
//
// # What it does not do
//
// The package does not repeat an attempt, keep an event's state, follow redirects, use
// a proxy of the environment, ask for compression, or read a long answer to its end.
package deliver
