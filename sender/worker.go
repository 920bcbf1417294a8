package sender

import (
	"context"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// work makes attempts until jobs is closed.
func (s *Sender) work(ctx context.Context, jobs <-chan *job, results chan<- *job) {
	for j := range jobs {
		if s.mayStart() {
			j.result = s.destination.Deliver(ctx, j.endpoint, j.event)
		} else {
			j.result = deliver.Result{Outcome: deliver.Held, Reason: deliver.ReasonLeaseOver, At: time.Now()}
		}
		results <- j
	}
}

// report writes an attempt to the log and the metrics, and calls OnAttempt.
func (s *Sender) report(j *job, kind deliver.Outcome, retryIn time.Duration) {
	m, res := s.metrics, &j.result
	m.attempts.WithLabelValues(string(kind), res.Reason).Inc()
	m.attemptSeconds.Observe(res.Duration.Seconds())
	level := zap.InfoLevel
	if kind == deliver.Delivered {
		level = zap.DebugLevel
		m.commitToDelivery.Observe(max(res.At.Add(res.Duration).Sub(j.event.CommittedAt), 0).Seconds())
	}
	if entry := s.log.Check(level, "attempt"); entry != nil {
		fields := []zap.Field{
			zap.Int64("endpoint", j.endpoint.ID),
			zap.String("event", j.event.WebhookID),
			zap.Int("attempt", j.event.Attempts+1),
			zap.Int("status", res.Status),
			zap.String("outcome", string(kind)),
			zap.String("reason", res.Reason),
			zap.Duration("duration", res.Duration),
		}
		if res.Status == 0 && res.Detail != "" {
			fields = append(fields, zap.String("detail", res.Detail)) // what the account is not shown
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
			Attempt: j.event.Attempts + 1, Status: res.Status, Outcome: string(kind), Reason: res.Reason,
			At: res.At, Duration: res.Duration,
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
		if s.Attempt.Outcome == string(deliver.Disable) {
			m.disabled.WithLabelValues(disabledGone).Inc()
		} else {
			m.disabled.WithLabelValues(disabledFailing).Inc()
		}
	}
}
