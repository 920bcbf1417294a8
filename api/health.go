package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one condition of a ready process.
type Check struct {
	Name string // for people: outbox, source
	// Ready returns nil when the condition holds. Otherwise it says what is wrong,
	// without secrets, because /readyz shows the text.
	Ready func(context.Context) error
}

// readyTimeout bounds all checks of one request together.
const readyTimeout = 3 * time.Second

// Handler serves /healthz, /readyz and, unless metrics is nil, /metrics. It passes all
// other paths to subscriptions, unless that is nil. Its own answers need no token and
// contain nothing about accounts.
//
// It does not use [http.ServeMux], which redirects an unusual path with an HTML page
// that a JSON client cannot read.
func Handler(checks []Check, metrics prometheus.Gatherer, subscriptions http.Handler) http.Handler {
	own := map[string]http.Handler{
		"/healthz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") }),
		"/readyz":  ready(checks),
	}
	if metrics != nil {
		own["/metrics"] = Metrics(metrics)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = tidied(r)
		handler, mine := own[r.URL.Path]
		switch {
		case mine && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			handler.ServeHTTP(w, r)
		case mine:
			w.Header().Set("Allow", "GET, HEAD")
			refuseUnseen(w, r, fail(http.StatusMethodNotAllowed, r.Method+" is not for this address: GET, HEAD"))
		case subscriptions != nil:
			subscriptions.ServeHTTP(w, r)
		default:
			refuseUnseen(w, r, notFound("the subscription API is not served here: this process answers GET /healthz, /readyz and /metrics"))
		}
	})
}

// tidied returns a request whose path has no slash at the end and no two slashes in a
// row. Clients that join a base URL and a path often write these.
func tidied(r *http.Request) *http.Request {
	path := r.URL.EscapedPath()
	tidy := strings.TrimRight(path, "/")
	for strings.Contains(tidy, "//") {
		tidy = strings.ReplaceAll(tidy, "//", "/")
	}
	if tidy == "" {
		tidy = "/" // RFC 9112, section 3.2.2
	}
	plain, err := url.PathUnescape(tidy)
	if tidy == path || err != nil {
		return r
	}
	r = r.Clone(r.Context())
	r.URL.Path, r.URL.RawPath = plain, tidy
	return r
}

func ready(checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
}

// Metrics serves /metrics and nothing else.
func Metrics(metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // an error means that the client is gone
}
