package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"walhook/sender"
)

// tracing sends spans of sampled events to an OpenTelemetry collector:
//
//	event    commit ───────────────────────────────▶ first answer
//	append   commit ──▶ in the log
//	tail                in the log ──▶ read by a sender
//	attempt                            request ────▶ answer       (one each)
//
// The trace id is derived from webhook-id and endpoint, so all attempts of an event are
// in one trace, whichever process makes them. The id alone decides whether the event is
// sampled. tracing makes spans when an attempt ends, from times that are known anyway.
// An event that is not sampled costs one hash.
type tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	below    uint64 // an event with a smaller number is sampled
}

// traceConfig says where traces go. Without an endpoint there are none.
type traceConfig struct {
	endpoint string  // URL of OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces
	sample   float64 // part of the events, 0 to 1
}

func newTracing(ctx context.Context, c traceConfig, log *zap.Logger) (*tracing, error) {
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.endpoint))
	if err != nil {
		return nil, fmt.Errorf("trace-endpoint: %w", err)
	}
	// The SDK reports background errors to one handler. Their text may contain
	// secrets.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("sending traces failed", zap.String("error_type", fmt.Sprintf("%T", err)))
	}))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter), // drops spans rather than block
		sdktrace.WithIDGenerator(traceIDs{}),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // attempt decides before
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "walhook"), attribute.String("service.version", readBuild().version))),
	)
	return &tracing{provider: provider, tracer: provider.Tracer("walhook"), below: uint64(c.sample * (1 << 63))}, nil
}

// close sends the remaining spans, within a bound.
func (t *tracing) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), shutdownTimeout, errors.New("send the last traces: timed out"))
	defer cancel()
	return t.provider.Shutdown(ctx)
}

// attempt makes the spans that end with an attempt. It does not block.
func (t *tracing) attempt(r sender.AttemptReport) {
	sum := sha256.Sum256([]byte(r.WebhookID + " " + strconv.FormatInt(r.Endpoint, 10)))
	if binary.BigEndian.Uint64(sum[8:])&math.MaxInt64 >= t.below {
		return
	}
	ids := rootIDs{trace.TraceID(sum[:16]), trace.SpanID(sum[16:24])}
	of := []attribute.KeyValue{attribute.String("walhook.schema", r.Schema), attribute.String("walhook.type", r.Type)}
	done := r.At.Add(r.Duration)
	parent := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: ids.trace, SpanID: ids.span, TraceFlags: trace.FlagsSampled,
	}))
	if r.Attempt == 1 {
		root := context.WithValue(context.Background(), rootIDs{}, ids)
		t.span(root, "event", r.CommittedAt, done, of, attribute.String("walhook.webhook_id", r.WebhookID))
		t.span(parent, "append", r.CommittedAt, r.AppendedAt, of)
		t.span(parent, "tail", r.AppendedAt, r.ReadAt, of)
	}
	span := t.start(parent, "attempt", r.At, of,
		attribute.Int("walhook.attempt", r.Attempt), attribute.Int("http.response.status_code", r.Status),
		attribute.String("walhook.outcome", r.Outcome), attribute.String("walhook.reason", r.Reason))
	if r.Outcome != "delivered" {
		span.SetStatus(codes.Error, r.Reason)
	}
	span.End(trace.WithTimestamp(done))
}

// span makes a span in the past. Its times come from up to three clocks, so span makes
// sure that it does not end before it begins.
func (t *tracing) span(ctx context.Context, name string, from, to time.Time, of []attribute.KeyValue, more ...attribute.KeyValue) {
	if to.Before(from) {
		to = from
	}
	t.start(ctx, name, from, of, more...).End(trace.WithTimestamp(to))
}

func (t *tracing) start(ctx context.Context, name string, at time.Time, of []attribute.KeyValue, more ...attribute.KeyValue) trace.Span {
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithAttributes(of...), trace.WithAttributes(more...))
	return span
}

// rootIDs are the ids of a root span. Its context carries them under the key
// rootIDs{}.
type rootIDs struct {
	trace trace.TraceID
	span  trace.SpanID
}

// traceIDs gives a root span the ids of its context, and other spans random ids.
type traceIDs struct{}

func (traceIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	ids, _ := ctx.Value(rootIDs{}).(rootIDs)
	return ids.trace, ids.span
}

func (traceIDs) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], max(rand.Uint64(), 1))
	return id
}
