// Package deliver makes one attempt at delivering one event, and returns the result. It knows
// no lanes, no schedule and no table of the outbox: its caller decides when to try and what
// follows.
//
//	lane's worker ─┐                           ┌ render   the endpoint's form of the event
//	API's test ────┼─▶ Destination.Deliver ─▶  │ sign     Standard Webhooks, each secret
//	doctor's check ┘         │                 │ guard    port, then the address at dial time
//	                         ▼                 │ client   one request, at most
//	                      Result  ◀─────────── └ classify status or failure → outcome
//
// # What it promises
//
//   - One call of [Destination.Deliver] makes at most one request. It writes nothing once
//     Config.MayBegin returns false.
//   - Nothing is sent to an address or port that the egress guard refuses, however the URL is
//     written and whatever its name resolves to. The guard checks the address that is dialled.
//   - No two endpoints share a connection.
//   - A [Result] contains no secret, no credential and no part of the event.
//
// # What decides the outcome
//
// [Result] has an [Outcome], a reason (also a label of metrics) and the flags that lanes use.
// The HTTP status is for people; lanes do not look at it. So another kind of destination is
// another type with a Deliver, and nothing of the sender changes. For HTTP the table is
// classifyResponse (outcome.go), a pure function:
//
//	2xx                      delivered
//	410                      disable
//	429, 503                 pause, for as long as Retry-After asks
//	408, 5xx, no answer      retry; counts against the endpoint
//	3xx and other 4xx        retry; counts against the event alone; a batch is split after 413, 431
//	URL of a GET too long    dead
//	a local error            held: costs the endpoint nothing
//
// The status line decides, over HTTP/2 the field ":status". Interim responses before it change
// nothing, and neither does what follows: a header that is malformed, longer than 64 KiB or
// endless, a body that breaks off. The client reads at most 4 KiB of a body, for at most two
// seconds, and does not follow redirects.
//
// # What happens on failure
//
// classifyError names an error by its kind and by the phase that the attempt had reached. The
// account sees less than the operator: every failure to connect looks the same to it. An error
// of this machine is [Held]: no network, no descriptors, no resolver, no secret, the lease,
// the shutdown. When the context ends, the attempt ends soon.
//
// # Feeds
//
// An operator's feed goes to other destinations than an account's URL (feed.go): HTTP without
// the limits of allowed networks and ports, or NATS JetStream (nats*.go), where the message is
// delivered once its stream has acknowledged it. Its failures begin with nats_:
//
//	                     ┌ credentials, TLS, egress guard: read for each session
//	natsFeeds ─▶ natsConn ─▶ natsSession, one at a time ─▶ stream ─▶ acknowledgement
//	                ▲             │                                       │
//	                │             └ lost, refused, denied ─▶ fails what   ├▶ classifyNATS
//	                │                                        is in flight │
//	                └──── no stream answers: another server ◀─────────────┘
//
// # Clients
//
// [ClientWalhook] (client, conn, connPool) speaks HTTP/1.1 on the goroutine of the attempt,
// which costs less than handing each request to other goroutines, and leaves HTTP/2 to
// net/http. [ClientNetHTTP] is net/http for both, with a gate on each connection that keeps
// the promises above. Each is an http.RoundTripper, and one suite of tests runs on both.
// net/http differs in one thing: behind an interim response (1xx) the status decides only
// once its header is complete.
//
// # Where to look
//
//	what counts as delivered, retried, dead          outcome.go (dead by schedule: package sender)
//	which reason an error gets                       failure.go, classifyError; status.go
//	which of them the account sees                   failure.go, shown
//	which addresses and ports may be dialled         egress.go
//	the bytes of a request                           request.go, render and appendHead
//	signatures                                       request.go, signer
//	time limits of an attempt                        http.go, Config
//	what of an answer is kept for people             http.go, read; redact.go
//	when a connection is used again                  client.go, conn.go
//	whether a DNS failure is this machine's          dialer.go, nameServers
//
// # What it does not do
//
// It does not repeat an attempt, keep an event's state, follow redirects, use a proxy of the
// environment, ask for compression, or read a response to its end.
package deliver
