package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox/admin"
)

// call is one request with what the logs and the handlers need. Only its own goroutine
// uses it.
type call struct {
	id        string
	principal *Principal // nil for a request from outside
	who       string     // the token's id, or operator; "" before it is known
	session   bool       // who is a session of the portal
	operator  bool
	payer     string // the token's account, whose limits count; "" for the operator
	account   string // the account in its path
	whole     bool   // its path names none: it is about all accounts
	broken    bool   // its body cannot be read to its end

	keys   []string          // its headers Idempotency-Key
	match  []string          // its headers If-Match
	proof  [sha256.Size]byte // derived from its token's secret
	header http.Header       // of the answer
	// unprocessable keeps a 422 of ours; a 422 of huma becomes a 400.
	unprocessable bool
}

// caller returns the party on whose behalf the call makes a change.
func (c *call) caller() admin.Caller {
	if c.operator {
		return admin.Caller{}
	}
	if c.session {
		return admin.Caller{Session: c.principal.Session, Account: c.payer, Maker: c.principal.Maker}
	}
	return admin.Caller{Token: c.who, Account: c.payer}
}

// actor returns who stands in the audit for the call.
func (c *call) actor() admin.Actor {
	name := c.who
	if !c.operator && !c.session {
		name = "token " + c.who
	}
	return admin.Actor{Name: name, RequestID: c.id}
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return &call{}
	}
	return c
}

// requestIDHeader is accepted from clients and proxies, and sent back.
const requestIDHeader = "X-Request-Id"

// outer wraps every route: request id, bounds, panics.
func (s *subscriptions) outer(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		c := &call{id: begin(w, r), principal: principalOf(r.Context()), keys: r.Header.Values(idempotencyHeader), match: r.Header.Values(matchHeader), header: h}
		began := time.Now()
		seen := &seenStatus{ResponseWriter: w}
		defer func() {
			if fault := recover(); fault != nil {
				s.log.Error("panic in request handler", zap.String("request_id", c.id), zap.Any("panic", fault), zap.ByteString("stack", debug.Stack()))
				if seen.status == 0 {
					refuse(seen, c.id, fail(http.StatusInternalServerError, "internal error: quote request_id to the operator, whose log has the reason"))
				}
			}
			s.log.Debug("request", zap.String("request_id", c.id), zap.String("who", c.who), zap.String("method", r.Method),
				zap.Int("status", seen.status), zap.Duration("duration", time.Since(began)))
		}()
		if s.cfg.AdminToken == "" && c.principal == nil {
			refuse(seen, c.id, fail(http.StatusForbidden, "the subscription API is disabled: the operator enables it with --admin-token"))
			return
		}
		if f := s.fits(mux, r, h); f != nil {
			refuse(seen, c.id, f)
			return
		}
		mux.ServeHTTP(seen, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
}

// begin writes the headers of every answer and returns the request's id.
func begin(w http.ResponseWriter, r *http.Request) (id string) {
	id = requestID(r.Header.Get(requestIDHeader))
	h := w.Header()
	h.Set(requestIDHeader, id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	return id
}

// refuseUnseen answers a request with an error before any route sees it.
func refuseUnseen(w http.ResponseWriter, r *http.Request, f *failure) { refuse(w, begin(w, r), f) }

// bounded limits the time of every call; a call that waits for a receiver gets more.
func (s *subscriptions) bounded(ctx huma.Context, next func(huma.Context)) {
	limit := requestTimeout
	switch kindOf(ctx.Operation()) {
	case receiverCall:
		limit += s.cfg.TestTimeout
	case feedCall:
		limit += streamLife // what it asks of the outbox has its own bound
	}
	within, cancel := context.WithTimeoutCause(ctx.Context(), limit, errors.New("answer a request of the API"))
	defer cancel()
	next(huma.WithContext(ctx, within))
}

// fits returns the fault of a request that no route should see; nil for none.
func (s *subscriptions) fits(mux *http.ServeMux, r *http.Request, h http.Header) *failure {
	if path := r.URL.EscapedPath(); !strings.HasPrefix(path, "/") || hasDots(path) {
		return notFound("there is nothing at this address: write the path from / on, without the parts . and ..")
	}
	if _, pattern := mux.Handler(r); pattern == "" {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "" {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) == 0 {
			return notFound("not found: paths begin with /v2/accounts/{account_id}/, such as /v2/accounts/7/webhooks; GET /openapi.json describes them all")
		}
		h.Set("Allow", strings.Join(allowed, ", "))
		return fail(http.StatusMethodNotAllowed, "method "+r.Method+" not allowed; allowed: "+strings.Join(allowed, ", "))
	}
	// Go would drop malformed parameters silently, and their defaults would apply.
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return fail(http.StatusBadRequest, "the query after ? cannot be read: write a % as %25, a ; as %3B, and join parameters by &")
	}
	if slices.Contains([]string{http.MethodGet, http.MethodDelete, http.MethodHead}, r.Method) {
		return nil // the body is ignored
	}
	if r.ContentLength > maxBody {
		return tooLarge()
	}
	if r.ContentLength == 0 {
		return nil
	}
	if coded := r.Header.Values("Content-Encoding"); !slices.ContainsFunc(coded, isPlain) && len(coded) > 0 || len(coded) > 1 {
		h.Set("Accept-Encoding", "identity") // RFC 9110, section 15.5.16
		return fail(http.StatusUnsupportedMediaType, "compressed bodies are not supported: send the body without Content-Encoding")
	}
	if types := r.Header.Values("Content-Type"); len(types) > 1 || !isJSON(r.Header.Get("Content-Type")) {
		return fail(http.StatusUnsupportedMediaType, "the body must be JSON in UTF-8, with the header Content-Type: application/json")
	}
	return nil
}

// hasDots reports whether a path contains . or .. as a segment. These name no account
// and no webhook, and a proxy in front may resolve them to another path.
func hasDots(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(part string) bool { return part == "." || part == ".." })
}

// isPlain reports whether a Content-Encoding leaves a body unchanged.
func isPlain(coding string) bool {
	coding = strings.ToLower(strings.TrimSpace(coding))
	return coding == "" || coding == "identity"
}

func tooLarge() *failure {
	return fail(http.StatusRequestEntityTooLarge, "the body is larger than 256 KiB")
}

// isJSON reports whether a Content-Type is JSON in UTF-8, which a missing one stands
// for. It ignores other parameters.
func isJSON(contentType string) bool {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if strings.TrimSpace(contentType) == "" {
		return true
	}
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return false
	}
	charset := strings.ToLower(parameters["charset"])
	return slices.Contains([]string{"", "utf-8", "utf8", "us-ascii"}, charset) &&
		(kind == jsonType || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"))
}

// requestID returns the id that a client sent if it is fit for a log line, or else a new
// one.
func requestID(sent string) string {
	fit := sent != "" && len(sent) <= 128 && !strings.ContainsFunc(sent, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_.:+/=", c))
	})
	if fit {
		return sent
	}
	return strings.ToLower(rand.Text())
}

// seenStatus remembers the status of an answer.
type seenStatus struct {
	http.ResponseWriter
	status int
}

func (w *seenStatus) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write hides the error of a client that is gone or does not read, because huma would
// panic. The context and the connection end by themselves.
func (w *seenStatus) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	_, _ = w.ResponseWriter.Write(b)
	return len(b), nil
}

// Unwrap is for http.ResponseController.
func (w *seenStatus) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// audit logs a change: who did what to which webhook. The line holds no secret, and of
// a URL only host and path.
func (s *subscriptions) audit(ctx context.Context, what string, w *admin.Webhook, fields ...zap.Field) {
	c := callOf(ctx)
	s.log.Info("audit", append([]zap.Field{
		zap.String("action", what), zap.String("who", c.who), zap.String("account", c.account), zap.String("webhook", w.ID),
		zap.Int64("endpoint", w.Endpoint), zap.String("request_id", c.id),
	}, fields...)...)
}
