// Package api is what walhook answers over HTTP: whether it is alive, whether
// it is ready, and its metrics.
//
//	GET /healthz   200 as long as the process answers
//	GET /readyz    200 when every part that runs here does its work, else 503
//	GET /metrics   Prometheus
//
// It neither authenticates nor encrypts: it listens on loopback unless told
// otherwise, and none of its answers holds an account, a URL or a secret.
package api
