package outbox_test

import (
	"testing"

	"walhook/outbox"
	"walhook/outbox/outboxtest"
	"walhook/sender"
)

// The session on PostgreSQL keeps the promises that the log in memory keeps, on
// which the sender's tests stand.
func TestSession_KeepsWhatALogPromises(t *testing.T) {
	t.Parallel()
	outboxtest.Run(t, func(tb testing.TB) outboxtest.Harness {
		w := outbox.NewSuiteWorld(tb.(*testing.T))
		return &onPostgres{Log: sender.Outbox(w.Store()), w: w}
	})
}

// onPostgres puts the outbox's own words into the suite's.
type onPostgres struct {
	sender.Log
	w *outbox.SuiteWorld
}

func (p *onPostgres) Endpoint(tb testing.TB, shard int) outbox.Endpoint {
	return p.w.MakeEndpoint(tb.(*testing.T), shard)
}

func (p *onPostgres) SetURL(tb testing.TB, endpoint int64, url string) outbox.Endpoint {
	return p.w.ChangeURL(tb.(*testing.T), endpoint, url)
}

func (p *onPostgres) Await(tb testing.TB, endpoint int64) outbox.Endpoint {
	return p.w.AwaitEndpoint(tb.(*testing.T), endpoint)
}

func (p *onPostgres) Confirmed(tb testing.TB, endpoint int64) int64 {
	return p.w.ConfirmedRevision(tb.(*testing.T), endpoint)
}

func (p *onPostgres) Append(tb testing.TB, drafts ...outboxtest.Draft) []outbox.Event {
	changes := make([]outbox.SuiteDraft, len(drafts))
	for i, d := range drafts {
		changes[i] = outbox.SuiteDraft(d)
	}
	return p.w.AppendChanges(tb.(*testing.T), changes)
}

func (p *onPostgres) Age(tb testing.TB) { p.w.AgeLog(tb.(*testing.T)) }

func (p *onPostgres) Trim(tb testing.TB) bool { return p.w.TrimLog(tb.(*testing.T)) }

func (p *onPostgres) Lapse(tb testing.TB, name string) { p.w.EndLease(tb.(*testing.T), name) }

func (p *onPostgres) Attempts(tb testing.TB, e outbox.Event) []outbox.Attempt {
	return p.w.AttemptsOf(tb.(*testing.T), e)
}

func (p *onPostgres) Dead(tb testing.TB) (dead []outboxtest.DeadLetter) {
	for _, d := range p.w.DeadLetters(tb.(*testing.T)) {
		dead = append(dead, outboxtest.DeadLetter(d))
	}
	return dead
}
