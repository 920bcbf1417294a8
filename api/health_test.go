package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestHandler_SaysWhatIsNotReady(t *testing.T) {
	source := errors.New("connecting")
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "walhook_test_total", Help: "Test."}))
	server := httptest.NewServer(Handler([]Check{
		{Name: "outbox", Ready: func(context.Context) error { return nil }},
		{Name: "source", Ready: func(context.Context) error { return source }},
	}, registry, nil))
	defer server.Close()

	want := func(path string, status int, text string) {
		t.Helper()
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode != status || !strings.Contains(string(body), text) {
			t.Errorf("%s: %d %q, want %d and %q", path, response.StatusCode, body, status, text)
		}
	}
	want("/healthz", 200, "ok")
	want("/readyz", 503, "outbox: ok\nsource: connecting")
	source = nil
	want("/readyz", 200, "source: ok")
	want("/metrics", 200, "walhook_test_total 0")
}
