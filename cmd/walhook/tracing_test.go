package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"walhook/sender"
)

// traceCollector takes traces over HTTP, as a collector does.
type traceCollector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span // guarded by mu
}

func newTraceCollector(t *testing.T) *traceCollector {
	t.Helper()
	c := &traceCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
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
	t.Cleanup(c.Close)
	return c
}

// traces are the spans that came, by trace, in order of start.
func (c *traceCollector) traces() map[string][]*tracepb.Span {
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

// TestTracing_FollowsAnEventFromCommitToAnswer has a process send its traces of
// events that arrive at the second attempt.
func TestTracing_FollowsAnEventFromCommitToAnswer(t *testing.T) {
	t.Parallel()
	c := newTraceCollector(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if id := r.Header.Get("webhook-id"); !seen[id] {
			seen[id] = true
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	s := newShop(t, 1, func(string) string {
		return strings.Replace(server.URL, "://", "://user:hunter2@", 1) + "/hunter2?token=hunter2"
	})
	process := startChild(t, "run", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog,
		"--listen", "off", "--allow-cidr", "127.0.0.0/8", "--retry-schedule", "100ms,1s", "--trace-endpoint", c.URL+"/v1/traces", "--trace-sample", "1")
	before := time.Now()
	s.db.Exec(t, "INSERT INTO item (id, account, note) VALUES (1, 1, 'hunter2')")
	s.db.Exec(t, "INSERT INTO item (id, account, note) VALUES (2, 1, 'hunter2')")
	eventually(t, 30*time.Second, func() bool {
		traces := c.traces()
		for _, spans := range traces {
			if len(spans) != 5 {
				return false
			}
		}
		return len(traces) == 2
	})
	for _, spans := range c.traces() {
		checkTrace(t, spans, before)
	}
	process.stop(t)
}

func checkTrace(t *testing.T, spans []*tracepb.Span, before time.Time) {
	t.Helper()
	byName := map[string][]*tracepb.Span{}
	for _, span := range spans {
		byName[span.GetName()] = append(byName[span.GetName()], span)
		if span.GetEndTimeUnixNano() < span.GetStartTimeUnixNano() || span.GetStartTimeUnixNano() < uint64(before.Add(-time.Second).UnixNano()) {
			t.Errorf("%s lasts from %d to %d", span.GetName(), span.GetStartTimeUnixNano(), span.GetEndTimeUnixNano())
		}
		if text := prototext.Format(span); strings.Contains(text, "hunter2") || strings.Contains(text, "127.0.0.1") {
			t.Errorf("a span shows what it must not:\n%s", text)
		}
	}
	root, attempts := byName["event"], byName["attempt"]
	if len(root) != 1 || len(byName["append"]) != 1 || len(byName["tail"]) != 1 || len(attempts) != 2 {
		t.Fatalf("spans %v", byName)
	}
	for _, span := range spans {
		if span != root[0] && string(span.GetParentSpanId()) != string(root[0].GetSpanId()) {
			t.Errorf("%s is not below the event", span.GetName())
		}
	}
	if len(root[0].GetParentSpanId()) != 0 {
		t.Error("the event has a parent")
	}
	failed := func(span *tracepb.Span) bool {
		return span.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR
	}
	if !failed(attempts[0]) || failed(attempts[1]) {
		t.Errorf("attempts %v", attempts)
	}
	appended, tailed := byName["append"][0], byName["tail"][0]
	if appended.GetStartTimeUnixNano() != root[0].GetStartTimeUnixNano() || tailed.GetStartTimeUnixNano() != appended.GetEndTimeUnixNano() {
		t.Error("the spans do not join")
	}
}

// The same events are chosen by every process and for every attempt, and about
// as many as was asked for.
func TestTracing_SamplesByTheEventAlone(t *testing.T) {
	t.Parallel()
	c := newTraceCollector(t)
	const events = 4000
	for process := range 2 {
		traces, err := newTracing(t.Context(), traceConfig{c.URL + "/v1/traces", 0.1}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		for i := range events {
			traces.attempt(sender.AttemptReport{Endpoint: 7, WebhookID: fmt.Sprintf("evt_%016X_1", i), Attempt: process + 1, At: now,
				CommittedAt: now, AppendedAt: now, ReadAt: now, Outcome: "retry", Reason: "5xx"})
			if i%500 == 0 {
				if err := traces.provider.ForceFlush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := traces.close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sampled := c.traces()
	if n := len(sampled); n < events/14 || n > events/7 {
		t.Errorf("%d of %d events are traced, want a tenth", n, events)
	}
	for _, spans := range sampled {
		if len(spans) != 5 { // event, append, tail, and an attempt of each process
			t.Fatalf("%d spans of an event", len(spans))
		}
	}
}
