package main

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"

	"walhook/internal/otlptest"
	"walhook/sender"
)

// The same events are chosen by every process and for every attempt, and about
// as many as was asked for.
func TestTracing_SamplesByTheEventAlone(t *testing.T) {
	t.Parallel()
	c := otlptest.NewCollector(t)
	const events = 4000
	for process := range 2 {
		traces, err := newTracing(t.Context(), traceConfig{c.URL, 0.1}, zap.NewNop())
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
	sampled := c.Traces()
	if n := len(sampled); n < events/14 || n > events/7 {
		t.Errorf("%d of %d events are traced, want a tenth", n, events)
	}
	for _, spans := range sampled {
		if len(spans) != 5 { // event, append, tail, and an attempt of each process
			t.Fatalf("%d spans of an event", len(spans))
		}
	}
}
