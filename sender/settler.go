package sender

import (
	"context"

	"walhook/outbox"
)

// settledBatch is what has become durable, and how the records stand that it
// touched.
type settledBatch struct {
	batch  []outbox.Settlement
	states []outbox.RecordState
}

// settle makes batches durable, one after the other: while one is committing,
// the dispatcher collects the next. So batches grow with the load and an idle
// sender settles at once.
func (s *Sender) settle(ctx context.Context, log Settlements, batches <-chan []outbox.Settlement, done chan<- settledBatch) error {
	for {
		var answer settledBatch
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case answer.batch = <-batches:
		}
		err := s.insist(ctx, "settle", func(ctx context.Context) (err error) {
			answer.states, err = log.Settle(ctx, answer.batch)
			return err
		})
		if err != nil {
			return err
		}
		s.metrics.countSettled(answer.batch)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case done <- answer:
		}
	}
}
