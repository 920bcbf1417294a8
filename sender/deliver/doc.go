// Package deliver makes one attempt at delivering one event, and says what it
// came to. It knows no lanes, no schedule and no table of the outbox: whoever
// calls it decides when to try and what follows.
//
//	lane's worker ─┐                           ┌ render   the endpoint's form of the event
//	API's test ────┼─▶ Destination.Deliver ─▶  │ sign     Standard Webhooks, each secret
//	doctor's check ┘         │                 │ guard    port, then the address at dial time
//	                         ▼                 │ client   one request, at most
//	                      Result  ◀─────────── └ judge    status or failure → outcome
//
// # What it promises
//
// One call of [Destination.Deliver] is at most one request. Nothing is written
// once Config.MayBegin says no. Nothing is sent to an address or port that the
// egress guard refuses, however a URL writes it and whatever its name leads to by
// then. No two endpoints share a connection. No secret, no credential and no part
// of the event is in a [Result].
//
// # What decides
//
// [Result] has an [Outcome], a reason that is a label of metrics, and the flags
// that lanes go by; HTTP's status is there for people. The lanes never look at
// it, so another kind of destination is another type with a Deliver, and none of
// the sender changes. For HTTP the table is judge:
//
//	2xx                      delivered
//	410                      disable
//	429, 503                 pause, for as long as Retry-After asks
//	408, 5xx, no answer      retry; counts against the endpoint
//	other 3xx and 4xx        retry; counts against the event alone
//	URL of a GET too long    dead
//	this machine's fault     held: costs the endpoint nothing
//
// The status line decides, over HTTP/2 ":status". What comes before it as interim
// answers and what follows it changes nothing: a header that is malformed, longer
// than 64 KiB or never ends, a body that breaks off. At most 4 KiB of a body are
// read, for at most two seconds. Redirects are not followed.
//
// # On failure
//
// classify names what went wrong by the error and by how far the attempt came.
// The account is shown less than the operator: what does not connect looks the
// same whatever the cause. A fault of this machine is Held: no network, no
// descriptors, no resolver, no secret, the lease, the shutdown. The end of the
// context ends an attempt soon.
//
// # Clients
//
// [ClientWalhook] (client, conn, connPool) speaks HTTP/1.1 on the goroutine of the
// attempt, which costs less than handing each request to other goroutines, and
// leaves HTTP/2 to net/http. [ClientNetHTTP] is net/http for both, held by a gate on
// each connection to the promises above. Each is an http.RoundTripper, and one
// suite of tests runs on both. net/http differs in two things:
//
//   - Behind an interim answer (1xx) the status decides only once its header is
//     whole.
//   - What a receiver sends before a request is seen only once net/http's own
//     goroutine has read it. In the moment before, it counts as the answer. net/http
//     writes such bytes to the log at debug level.
//
// # What it does not do
//
// It does not repeat an attempt, keep an event's state, follow redirects, use a
// proxy of the environment, ask for compression, or read an answer to its end.
package deliver
