package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one thing that has to hold for the process to be ready.
type Check struct {
	Name string // for people: outbox, source
	// Ready is nil when it holds; otherwise it says what is wrong, without
	// secrets: the text is answered.
	Ready func(context.Context) error
}

// readyTimeout bounds the checks of one request together.
const readyTimeout = 3 * time.Second

// Handler answers /healthz, /readyz and, where metrics is not nil, /metrics. It
// leaves all other paths to subscriptions, where it is not nil. What it answers
// itself needs no token, and says nothing of accounts.
func Handler(checks []Check, metrics prometheus.Gatherer, subscriptions http.Handler) http.Handler {
	mux := http.NewServeMux()
	if subscriptions != nil {
		mux.Handle("/", subscriptions)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		status, text := http.StatusOK, ""
		for _, check := range checks {
			if err := check.Ready(ctx); err != nil {
				status = http.StatusServiceUnavailable
				text += fmt.Sprintf("%s: %v\n", check.Name, err)
				continue
			}
			text += check.Name + ": ok\n"
		}
		plain(w, status, text)
	})
	if metrics != nil {
		mux.Handle("/metrics", Metrics(metrics))
	}
	return mux
}

// Metrics answers /metrics and nothing else.
func Metrics(metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the client is gone, or has it
}
