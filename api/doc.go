// Package api is what walhook answers over HTTP: whether it is alive, whether
// it is ready, its metrics, and the subscription API.
//
//	GET /healthz        200 as long as the process answers
//	GET /readyz         200 when every part that runs here does its work, else 503
//	GET /metrics        Prometheus
//	GET /openapi.json   the subscription API, as OpenAPI 3.1; also .yaml
//	/v2/accounts/…      the subscription API; also under /api/v1
//
// The first three ask for no token, and none of their answers holds an account,
// a URL or a secret. The subscription API lets through who bears a token for the
// account in the path; any other account is one that is not there. Without an
// operator's token it refuses every call.
//
//	outer ── id, bounds, panics ──▶ authorize ──▶ a handler ──▶ outbox
//	                                                  └─ checks of fields: document, edit
//
// Bodies are held against the schemas that the OpenAPI document shows; what is
// wrong is a 400 that names the field, what is not known is ignored and named
// in warnings. The server around it has the
// bounds of time and connections, and TLS where a certificate is given.
package api
