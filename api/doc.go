// Package api serves HTTP: whether walhook is alive and ready, its metrics, and the
// subscription API.
//
//	GET /healthz        200 as long as the process answers
//	GET /readyz         200 while every part of this process does its work, else 503
//	GET /metrics        Prometheus
//	GET /openapi.json   the subscription API, as OpenAPI 3.1; also .yaml
//	/v2/accounts/…      the subscription API; also under /api/v1
//
// The first three need no token, and their answers contain no account, URL or secret. A call
// of the subscription API goes through these steps:
//
//	outer ─▶ bounded ─▶ authorize ─▶ handler ─▶ outbox/admin
//	id, size, │ time     │ token,     └─ document: fields by their schema
//	panics,   │          │ account,      edit: what needs more than the value
//	fits      │          │ its turn
//	          └──────────┴─▶ an error answer: status, code, message, request_id
//
// # What it promises
//
//   - A call changes an account only with a token for that account, for a parent account whose
//     token includes sub-accounts, or with the operator's token. Any other account looks as if
//     it did not exist. Without an operator's token the API refuses every call.
//   - A wrong value is a 400 that names the field, and nothing is stored. An unknown field is
//     ignored and named in warnings.
//   - A call that creates something honours Idempotency-Key; one that changes a webhook
//     honours If-Match.
//   - One account cannot use up what all share: calls at a time, time of the outbox, tests.
//   - Every change, every read of a secret and every test is a line "audit" in the logs.
//     No line and no error contains a token, a secret, or more of a URL than host and path.
//
// # What happens on failure
//
// The outbox does not answer: 503, try again. A caller exceeds its share, or sends many wrong
// tokens: 429 with Retry-After. An internal error: 500 without details; the logs have the
// reason under the request_id.
//
// # Where to look
//
//	who may do what                          auth.go, authorize and admit
//	how wrong tokens are slowed down         guard.go
//	which address a request counts for       client.go
//	what is refused before any route         outer.go, fits
//	which values a field may have            document.go (tags of webhookFields), edit.go
//	which JSON is refused                    strict.go, custom_data.go
//	limits of calls                          limit.go, limit_try.go
//	keys of repeated requests                once.go; outbox/admin/once.go decides
//	the form of answers and errors           answer.go
//	pages of lists                           paging.go
//	when a process is ready                  health.go; the checks are cmd/walhook's
//
// # What it does not do
//
// It holds no SQL and no state but limits and tokens seen: package outbox/admin reads and
// changes what is stored.
// Limits of connections and TLS are internal/httpd's. A test event is sent by [Destination],
// in the process that serves the call.
package api
