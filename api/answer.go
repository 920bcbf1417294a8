package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// envelope is the shape of every successful answer.
type envelope[T any] struct {
	Data      T        `json:"data"`
	Status    string   `json:"status" enum:"success"`
	RequestID string   `json:"request_id" doc:"names the request in the operator's log"`
	Warnings  []string `json:"warnings,omitempty" doc:"what was ignored, or has no effect"`
}

// page is an envelope of a list.
type page[T any] struct {
	Data         []T    `json:"data" nullable:"false"`
	Status       string `json:"status" enum:"success"`
	RequestID    string `json:"request_id" doc:"names the request in the operator's log"`
	PageSize     int    `json:"page_size" doc:"number of items in data"`
	NextStartKey string `json:"next_start_key,omitempty" doc:"start_key of the next page; absent on the last"`
}

// answer is what a handler returns.
type answer[T any] struct{ Body envelope[T] }

// pageAnswer is what the handler of a list returns.
type pageAnswer[T any] struct{ Body page[T] }

// errorBody is the shape of every error.
type errorBody struct {
	Data      map[string]map[string]fault `json:"data,omitempty" doc:"what is wrong, by field and kind"`
	Error     string                      `json:"error" doc:"the HTTP status" example:"404"`
	Message   string                      `json:"message" doc:"what is wrong, for people"`
	Status    string                      `json:"status" enum:"error"`
	RequestID string                      `json:"request_id" doc:"names the request in the operator's log"`
	Oldest    string                      `json:"oldest,omitempty" doc:"with 410: the cursor before the oldest event of the feed that is kept"`
}

// fault is one error of a field.
type fault struct {
	Message string `json:"message"`
}

// failure is an answer that is an error. Its text is for the client.
type failure struct {
	status  int
	message string
	fields  map[string]map[string]fault
	after   time.Duration // when to try again; zero if trying again does not help
	oldest  string        // of a feed; "" for any other answer
}

func (f *failure) Error() string  { return f.message }
func (f *failure) GetStatus() int { return f.status }

// GetHeaders is for huma.
func (f *failure) GetHeaders() http.Header {
	h := http.Header{}
	if f.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.after.Seconds()))))
	}
	return h
}

func (f *failure) body(requestID string) errorBody {
	return errorBody{Data: f.fields, Error: strconv.Itoa(f.status), Message: f.message, Status: "error", RequestID: requestID, Oldest: f.oldest}
}

func fail(status int, message string) *failure { return &failure{status: status, message: message} }

// tooMany is a 429: one caller exceeds its share.
func tooMany(after time.Duration, message string) *failure {
	return &failure{status: http.StatusTooManyRequests, message: message, after: after}
}

// unavailable is a 503: the API can serve no caller at the moment.
func unavailable(message string) *failure {
	return &failure{status: http.StatusServiceUnavailable, message: message, after: turnTimeout}
}

func notFound(message string) *failure { return fail(http.StatusNotFound, message) }

// The kinds of faults.
const (
	kindRequired = "required"
	kindInvalid  = "invalid"
	kindConflict = "conflict"
	kindReadOnly = "readonly"
)

// faults collects the errors of the fields of a body.
type faults map[string]map[string]fault

func (f faults) add(field, kind, format string, args ...any) {
	if f[field] == nil {
		f[field] = map[string]fault{}
	}
	f[field][kind] = fault{fmt.Sprintf(format, args...)}
}

// failure returns nil when there are no faults.
func (f faults) failure() *failure {
	if len(f) == 0 {
		return nil
	}
	var texts []string
	for _, field := range slices.Sorted(maps.Keys(f)) {
		for _, kind := range slices.Sorted(maps.Keys(f[field])) {
			texts = append(texts, field+": "+f[field][kind].Message)
		}
	}
	return &failure{status: http.StatusBadRequest, message: strings.Join(texts, "; "), fields: f}
}

// conflict is a 409 about a field: its value is right, but nothing can be done for it now.
func conflict(field, message string) *failure {
	return &failure{status: http.StatusConflict, message: field + ": " + message, fields: faults{field: {kindConflict: {message}}}}
}

// err returns nil when there are no faults.
func (f faults) err() error {
	if failure := f.failure(); failure != nil {
		return failure
	}
	return nil
}

// answerOf returns a successful answer.
func answerOf[T any](data T, warnings ...[]string) *answer[T] {
	return &answer[T]{envelope[T]{Data: data, Warnings: slices.Concat(warnings...)}}
}

// utc returns an instant in UTC for an answer. Zero stays zero. A damaged row may hold
// an instant that JSON cannot represent; utc then returns the nearest one.
func utc(t time.Time) time.Time {
	switch t = t.UTC(); {
	case t.Year() > 9999:
		return lastInstant
	case t.Year() < 0:
		return time.Time{}
	}
	return t
}

// finite returns a number that JSON can represent: a damaged row may hold others.
func finite(n float64) float64 {
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return 0
	}
	return n
}

// lastInstant is the last one that RFC 3339 can write.
var lastInstant = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)

// transform gives our errors and huma's the same shape, and every answer its request
// id.
func (s *subscriptions) transform(ctx huma.Context, _ string, v any) (any, error) {
	id := callOf(ctx.Context()).id
	switch body := v.(type) {
	case *failure:
		return body.body(id), nil
	case *huma.ErrorModel:
		if body.Status == http.StatusRequestTimeout {
			return fail(body.Status, "the body did not arrive in time: it has 10 seconds; is its Content-Length right?").body(id), nil
		}
		if callOf(ctx.Context()).broken {
			return fail(http.StatusBadRequest, "the body ends early: it is shorter than its Content-Length, or its chunks are malformed").body(id), nil
		}
		return ofHuma(body).body(id), nil
	case identified:
		return body.withRequestID(id), nil
	}
	return v, nil
}

type identified interface{ withRequestID(string) any }

func (e envelope[T]) withRequestID(id string) any {
	e.Status, e.RequestID = "success", cmp.Or(e.RequestID, id) // a remembered answer has its own
	return e
}

func (p page[T]) withRequestID(id string) any {
	p.Status, p.RequestID, p.PageSize = "success", id, len(p.Data)
	if p.Data == nil {
		p.Data = []T{}
	}
	return p
}

// ofHuma converts huma's error about a request that no handler saw.
func ofHuma(e *huma.ErrorModel) *failure {
	if e.Status >= 500 {
		return fail(e.Status, "internal error")
	}
	wrong := faults{}
	for _, detail := range e.Errors {
		field := detail.Location
		for _, place := range []string{"query.", "path.", "header."} {
			field = strings.TrimPrefix(field, place)
		}
		wrong.add(field, kindInvalid, "%s", detail.Message)
	}
	if f := wrong.failure(); f != nil && e.Status == http.StatusUnprocessableEntity {
		return f
	}
	return fail(e.Status, e.Detail)
}

// humaContext renames huma.Context, because an embedded field named Context would
// hide the method of that name.
type humaContext huma.Context

// kazooContext answers as Kazoo does: always in JSON, and with 400 for an invalid
// request.
type kazooContext struct{ humaContext }

func inKazooShape(ctx huma.Context, next func(huma.Context)) { next(kazooContext{ctx}) }

func (c kazooContext) Unwrap() huma.Context { return c.humaContext }

func (c kazooContext) SetStatus(status int) {
	if status == http.StatusUnprocessableEntity && !callOf(c.Context()).unprocessable || status == http.StatusInternalServerError && callOf(c.Context()).broken {
		status = http.StatusBadRequest
	}
	c.humaContext.SetStatus(status)
}

// BodyReader notes that a body cannot be read. Huma would report that as a server
// error.
func (c kazooContext) BodyReader() io.Reader {
	return bodyReader{c.humaContext.BodyReader(), callOf(c.Context())}
}

type bodyReader struct {
	io.Reader
	call *call
}

func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.call.broken = b.call.broken || err != nil && err != io.EOF
	return n, err
}

func (c kazooContext) SetHeader(name, value string) {
	if name == "Content-Type" {
		value = jsonType
	}
	c.humaContext.SetHeader(name, value)
}

const jsonType = "application/json"

// refuse answers with an error outside of huma.
func refuse(w http.ResponseWriter, requestID string, f *failure) {
	w.Header().Set("Content-Type", jsonType)
	maps.Copy(w.Header(), f.GetHeaders())
	w.WriteHeader(f.status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(f.body(requestID)) // an error means that the client is gone
}
