package endtoend

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/prototext"

	"walhook/internal/otlptest"
)

// TestTracing_FollowsAnEventFromCommitToAnswer has a process send its traces of
// events that arrive at the second attempt.
func TestTracing_FollowsAnEventFromCommitToAnswer(t *testing.T) {
	t.Parallel()
	c := otlptest.NewCollector(t)
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
		"--listen", "off", "--allow-cidr", "127.0.0.0/8", "--retry-schedule", "100ms,1s", "--trace-endpoint", c.URL, "--trace-sample", "1")
	before := time.Now()
	s.db.Exec(t, "INSERT INTO item (id, account, note) VALUES (1, 1, 'hunter2')")
	s.db.Exec(t, "INSERT INTO item (id, account, note) VALUES (2, 1, 'hunter2')")
	eventually(t, 30*time.Second, func() bool {
		traces := c.Traces()
		for _, spans := range traces {
			if len(spans) != 5 {
				return false
			}
		}
		return len(traces) == 2
	})
	for _, spans := range c.Traces() {
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
