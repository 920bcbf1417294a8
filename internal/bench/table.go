package bench

import (
	"fmt"
	"text/tabwriter"
)

// table prints rows under titles.
type table struct{ *tabwriter.Writer }

func (t *table) title(format string, args ...any) {
	fmt.Fprintf(t, "\n"+format+"\n", args...)
}

func (t *table) row(name string, value any) { fmt.Fprintf(t, "  %s\t%v\n", name, value) }

func (r *Throughput) write(t *table, what string) {
	t.title("%s; %d changes over %d accounts and %d receivers", what, r.Changes, r.Accounts, r.Receivers)
	t.row("deliveries/s, from the process's start", r.PerSecond.text())
	t.row("deliveries/s, from the first 2xx", r.Steady.text())
	t.row("first 2xx after, s", r.FirstSeconds.text())
	t.row("plain POSTs/s", r.PlainPosts.text())
	t.row("share of plain POSTs", r.ShareOfPosts.text())
	t.row("decode-only changes/s", r.Decoded.text())
	t.row("share of decode-only", r.ShareOfRead.text())
	if r.Recvlogical != nil {
		t.row("pg_recvlogical changes/s", r.Recvlogical.text())
		t.row("decode-only's share of it", r.ShareOfRecv.text())
	}
	r.Cost.write(t)
	r.Cores.write(t, "cores")
	if r.Batches != nil {
		r.Batches.write(t)
	}
}

func (r *Batches) write(t *table) {
	t.title("drain in batches: the same %d stored events one by one and up to %d in a request", r.Changes, r.Batch)
	t.row("deliveries/s, one by one", r.Single.text())
	t.row("deliveries/s, in batches", r.PerSecond.text())
	t.row("batches as a multiple of one by one", r.Ratio.text())
	t.row("events of a batch, on average", r.EventsPerRequest.text())
	t.row("one by one: CPU s per 1,000 deliveries, walhook", r.SingleCost.WalhookCPU.text())
	t.row("in batches: CPU s per 1,000 deliveries, walhook", r.Cost.WalhookCPU.text())
	t.row("one by one: CPU s per 1,000 deliveries, receivers", r.SingleCost.ReceiverCPU.text())
	t.row("in batches: CPU s per 1,000 deliveries, receivers", r.Cost.ReceiverCPU.text())
}

func (c Cores) write(t *table, when string) {
	t.row(when+", walhook", c.Walhook.text())
	t.row(when+", PostgreSQL", c.Postgres.text())
	t.row(when+", other processes than the benchmark's", c.Others.text())
}

func (c CostSpread) write(t *table) {
	t.row("CPU s per 1,000 deliveries: walhook", c.WalhookCPU.text())
	t.row("CPU s per 1,000 deliveries: PostgreSQL", c.PostgresCPU.text())
	t.row("  of which its walsender", c.WalsenderCPU.text())
	t.row("CPU s per 1,000 deliveries: receivers", c.ReceiverCPU.text())
	t.row("peak resident memory, MiB", c.PeakRSS.text())
	t.row("WAL bytes per delivery", c.WAL.text())
}

func (l Latency) write(t *table) {
	t.title("latency at %g transactions/s for %g s over %d accounts, ms", l.Rate, l.Seconds, l.Accounts)
	l.Commit.write(t, "commit to 2xx")
	l.Direct.write(t, "direct, commit to 2xx")
	t.row("p50 as a multiple of direct", l.OfDirectP50.text())
	t.row("p99 as a multiple of direct", l.OfDirectP99.text())
	l.Due.write(t, "due to 2xx")
	l.Late.write(t, "begun late")
	t.row("committed/s", l.Committed.text())
	l.Cores.write(t, "cores")
	l.DirectCores.write(t, "direct: cores")
}

func (q Quantiles) write(t *table, what string) {
	t.row(what+": p50", q.P50.text())
	t.row(what+": p99", q.P99.text())
	t.row(what+": p99.9", q.P999.text())
}

func (r *Trouble) write(t *table) {
	t.title("trouble: the healthy of %d endpoints, of which %d %% hang and %d %% refuse, at %g transactions/s for %g s, ms",
		r.Endpoints, r.Hanging, r.Refusing, r.Rate, r.Seconds)
	r.Calm.write(t, "calm: commit to 2xx")
	r.Trouble.write(t, "in trouble: commit to 2xx")
	t.row("p99 in trouble to p99 calm", r.Ratio.text())
	t.row("most requests in flight", r.Hung.text())
	r.Cores.write(t, "in trouble: cores")
	t.row("peak resident memory, MiB", r.PeakRSS.text())
}

func (f FanOut) write(t *table) {
	t.title("fan-out: %d changes, each to %d endpoints", f.Changes, f.Endpoints)
	t.row("deliveries/s", f.PerSecond.text())
	f.OneEvent.write(t, "one event, commit to the last 2xx, ms")
	f.Cost.write(t)
}

func (s Scale) write(t *table) {
	t.title("scale: a publisher and %d senders in processes of their own, the outbox on a PostgreSQL of its own, %d accounts", s.Senders, s.Accounts)
	t.row(fmt.Sprintf("deliveries/s, a backlog of %d", s.Changes), s.PerSecond.text())
	s.Backlog.write(t, "backlog")
	s.Commit.write(t, fmt.Sprintf("at %g/s for %g s: commit to 2xx, ms", s.Rate, s.Seconds))
	s.AtRate.write(t, fmt.Sprintf("at %g/s", s.Rate))
	s.Cores.write(t, "backlog: cores")
}

func (c ScaleCPU) write(t *table, when string) {
	t.row(when+", CPU s per 1,000: publisher", c.Publisher.text())
	t.row(when+", CPU s per 1,000: senders", c.Senders.text())
	t.row(when+", CPU s per 1,000: the outbox's server", c.Outbox.text())
	t.row("  of which the publisher's sessions", c.OutboxOfPublisher.text())
	t.row("  of which the senders' sessions", c.OutboxOfSenders.text())
	t.row(when+", CPU s per 1,000: the source's server", c.Source.text())
	t.row(when+": senders and outbox as a multiple of the first", c.OfFirst.text())
}

func (e *Edits) write(t *table) {
	t.title("edits: %g transactions a second, %d webhooks of other accounts", e.Rate, e.Webhooks)
	e.Quiet.write(t, "commit to 2xx, ms")
	e.Edit.write(t, "commit to 2xx while edited, ms")
	t.row("edits/s", e.Edited.text())
	t.row("p50 as a multiple of no edits", e.OfP50.text())
	t.row("p99 as a multiple of no edits", e.OfP99.text())
	t.row("resident memory, MiB", e.RSS.text())
}

func (i *Idle) write(t *table) {
	t.title("idle: %d endpoints, watched for %g s", i.Endpoints, i.Seconds)
	i.Started.write(t, "nothing sent yet")
	i.Delivered.write(t, "something sent to each")
	i.Rested.write(t, fmt.Sprintf("%g s later", i.SettleSeconds))
}

func (r Resting) write(t *table, when string) {
	t.row(when+": resident memory, MiB", r.RSS.text())
	r.Cores.write(t, when+": cores")
}

func (m *Memory) write(t *table) {
	t.title("memory: peak resident, MiB")
	t.row(fmt.Sprintf("%d single-row transactions", m.Drain.Changes), m.Drain.PeakRSS.text())
	t.row(fmt.Sprintf("one transaction of %d rows", m.Bulk.Changes), m.Bulk.PeakRSS.text())
}

func (w Waiting) write(t *table) {
	t.title("waiting: %d events in the outbox", w.Events)
	t.row("deliveries/s", w.PerSecond.text())
	t.row("CPU s per 1,000 deliveries", w.CPU.text())
	if w.Part < w.Events {
		t.row(fmt.Sprintf("… of the first %d", w.Part), w.FirstCPU.text())
		t.row(fmt.Sprintf("… of the last %d", w.Part), w.LastCPU.text())
	}
}

func (a *Aged) write(t *table) {
	t.title("aged: %d changes, before and after %d events", a.Changes, a.Events)
	for _, stage := range []struct {
		name string
		Stage
	}{{"fresh", a.Fresh}, {"old", a.Old}, {"after retention", a.Retained}} {
		t.row(stage.name+": deliveries/s", stage.PerSecond.text())
		t.row(stage.name+": CPU s per 1,000 deliveries", stage.CPU.text())
	}
}
