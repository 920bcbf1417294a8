// Package otlptest is a collector of traces for tests: it takes them over HTTP as
// the OpenTelemetry protocol has it, and keeps them.
package otlptest

import (
	"cmp"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector keeps what is sent to it.
type Collector struct {
	URL string // that takes traces

	mu    sync.Mutex
	spans []*tracepb.Span // guarded by mu
}

// NewCollector is a collector until the test ends. A request that is no export of
// traces fails the test.
func NewCollector(t *testing.T) *Collector {
	t.Helper()
	const path = "/v1/traces"
	c := &Collector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != path {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL + path
	return c
}

// Traces are the spans that came, by trace, in order of start.
func (c *Collector) Traces() map[string][]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	traces := map[string][]*tracepb.Span{}
	for _, span := range c.spans {
		traces[string(span.GetTraceId())] = append(traces[string(span.GetTraceId())], span)
	}
	for _, spans := range traces {
		slices.SortStableFunc(spans, func(a, b *tracepb.Span) int {
			return cmp.Compare(a.GetStartTimeUnixNano(), b.GetStartTimeUnixNano())
		})
	}
	return traces
}
