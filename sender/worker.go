package sender

import (
	"context"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

// work makes attempts until jobs is closed.
func (s *Sender) work(ctx context.Context, jobs <-chan *job, results chan<- *job) {
	for j := range jobs {
		at := time.Now()
		a := answer{failure: failLease}
		if s.mayStart() {
			a = s.deliver(ctx, j.endpoint, j.event, at)
		}
		j.result = a.result(at, time.Now())
		results <- j
	}
}

// report tells the log, the metrics and whoever watches about an attempt.
func (s *Sender) report(j *job, kind string, retryIn time.Duration) {
	m, res := s.metrics, &j.result
	m.attempts.WithLabelValues(kind, res.outcome.reason).Inc()
	m.attemptSeconds.Observe(res.duration.Seconds())
	level := zap.InfoLevel
	if kind == outcomeDelivered {
		level = zap.DebugLevel
		m.commitToDelivery.Observe(max(res.at.Add(res.duration).Sub(j.event.CommittedAt), 0).Seconds())
	}
	if entry := s.log.Check(level, "attempt"); entry != nil {
		fields := []zap.Field{
			zap.Int64("endpoint", j.endpoint.ID),
			zap.String("event", j.event.WebhookID),
			zap.Int("attempt", j.event.Attempts+1),
			zap.Int("status", res.status),
			zap.String("outcome", kind),
			zap.String("reason", res.outcome.reason),
			zap.Duration("duration", res.duration),
		}
		if res.status == 0 && res.detail != "" {
			fields = append(fields, zap.String("detail", res.detail)) // what the account is not shown
		}
		if retryIn > 0 {
			fields = append(fields, zap.Duration("retry_in", retryIn))
		}
		entry.Write(fields...)
	}
	if s.config.OnAttempt != nil {
		s.config.OnAttempt(AttemptReport{
			Account: j.endpoint.Account, Endpoint: j.endpoint.ID,
			Schema: j.event.Schema, Type: j.event.Type, WebhookID: j.event.WebhookID,
			Attempt: j.event.Attempts + 1, Status: res.status, Outcome: kind, Reason: res.outcome.reason,
			At: res.at, Duration: res.duration,
			CommittedAt: j.event.CommittedAt, AppendedAt: j.event.AppendedAt, ReadAt: j.event.ReadAt,
		})
	}
}

// countSettled counts what counts only once it is durable.
func (m *metrics) countSettled(batch []outbox.Settlement) {
	for i := range batch {
		s := &batch[i]
		if s.Disable == "" {
			continue
		}
		if s.Attempt.Outcome == outcomeDisable {
			m.disabled.WithLabelValues(disabledGone).Inc()
		} else {
			m.disabled.WithLabelValues(disabledFailing).Inc()
		}
	}
}
