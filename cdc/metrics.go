package cdc

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/schemas"
)

// metrics show how far the reader is behind its source, and what its slot costs
// there. The names are part of the contract (docs/CONTRACT.md §6). What only the
// source can tell is NaN while it does not answer: an old number would pass for
// a good one.
type metrics struct {
	serverEnd  atomic.Uint64 // the newest WAL end that the server named
	flushed    atomic.Uint64 // the stored flush position; 0 for not known
	oldest     atomic.Int64  // when the oldest change that is not stored was received, in nanoseconds; 0 for none
	lag        lag
	state      func() State
	answers    atomic.Bool // the source answered when it was last asked
	retained   prometheus.Gauge
	limit      prometheus.Gauge
	slot       *prometheus.GaugeVec
	reconnects prometheus.Counter
	gaps       prometheus.Counter
	unreadable prometheus.Counter
	refused    prometheus.Gauge
	partial    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, state func() State) *metrics {
	m := &metrics{
		state: state,
		retained: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walhook_slot_retained_bytes",
			Help: "WAL that the source keeps for the slot, on its disk. NaN while the source does not answer.",
		}),
		limit: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walhook_slot_limit_bytes",
			Help: "WAL that the source keeps for a slot at most before it gives the slot up, which is a gap (max_slot_wal_keep_size); +Inf for no limit. NaN while the source does not answer.",
		}),
		slot: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walhook_slot_wal_status",
			Help: "1 for what the source says of the WAL that the slot needs (pg_replication_slots.wal_status), 0 for the rest; missing is a slot that does not exist.",
		}, []string{"status"}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_source_reconnects_total",
			Help: "Times that reading stopped and was tried again, by a fault of the source or of the outbox.",
		}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_source_gaps_total",
			Help: "Gaps that this process found in the log; each is listed in the outbox.",
		}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_source_unreadable_total",
			Help: "Messages of the source that could not be read; after the same one five times the process ends.",
		}),
	}
	m.refused = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "walhook_source_tables_refusing_writes",
		Help: "Published tables and partitions of which the source refuses the carrier's own updates and deletes, because of their replica identity. Known to the process that reads.",
	})
	m.partial = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "walhook_source_tables_keeping_keys",
		Help: "Published tables and partitions that keep only the key of old rows: their deletes carry no more. Known to the process that reads.",
	})
	m.refused.Set(math.NaN())
	m.partial.Set(math.NaN())
	m.unknown()
	reg.MustRegister(m.retained, m.limit, m.slot, m.reconnects, m.gaps, m.unreadable, m.refused, m.partial)
	m.registerFuncs(reg, state)
	return m
}

// registerFuncs registers what is reckoned when it is asked for.
func (m *metrics) registerFuncs(reg prometheus.Registerer, state func() State) {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
	}
	gauge("walhook_source_lag_bytes",
		"WAL between the source's end, as it last said, and the stored position. NaN while the source does not answer.",
		nil, m.lagBytes)
	gauge("walhook_source_lag_seconds",
		"Age of the oldest committed change that is not stored, as far as the source's own positions tell, by this machine's clock alone: 0 for none. While the source does not answer, how long ago all was stored for the last time; NaN where that is not known.",
		nil, func() float64 { return m.lagSeconds(time.Now()) })
	gauge("walhook_source_up", "1 while the source answers this process, else 0.", nil, func() float64 { return number(m.answers.Load()) })
	for _, one := range []State{Connecting, Standby, Reading, Unreadable} {
		gauge("walhook_source_state",
			"1 for what the reader of this process is doing, 0 for the rest. Exactly one process reads; others wait as standby.",
			prometheus.Labels{"state": one.String()}, func() float64 { return number(state() == one) })
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// observed takes what the source just said of the slot.
func (m *metrics) observed(s SlotReport) {
	m.retained.Set(s.Retained)
	m.limit.Set(s.Limit)
	for _, status := range slotStatuses() {
		m.slot.WithLabelValues(status).Set(number(status == s.WALStatus))
	}
	m.serverEnd.Store(uint64(s.WALEnd))
	m.lag.mark(s.WALEnd, time.Now())
	m.answers.Store(true)
}

// unknown says that the source does not answer.
func (m *metrics) unknown() {
	m.answers.Store(false)
	m.retained.Set(math.NaN())
	m.limit.Set(math.NaN())
	for _, status := range slotStatuses() {
		m.slot.WithLabelValues(status).Set(0)
	}
}

func (m *metrics) lagBytes() float64 {
	end, flushed := m.serverEnd.Load(), m.flushed.Load()
	switch {
	case !m.answers.Load():
		return math.NaN()
	case end <= flushed || flushed == 0:
		return 0
	}
	return float64(end - flushed)
}

func (m *metrics) lagSeconds(now time.Time) float64 {
	oldest, answers := m.oldest.Load(), m.answers.Load()
	since := m.lag.since(m.flushed.Load(), oldest != 0, answers)
	if at := time.Unix(0, oldest); oldest != 0 && (since.IsZero() || at.Before(since)) {
		since = at
	}
	switch {
	case since.IsZero() && !answers:
		return math.NaN()
	case since.IsZero() || m.state() == Standby && now.Sub(since) < standbyTolerance:
		return 0
	}
	return max(now.Sub(since), 0).Seconds()
}

// received notes that a change waits to be stored. The time of its commit says
// nothing here: it is by the source's clock, or by that of a server which the
// source has it from.
func (m *metrics) received() {
	if m.oldest.Load() == 0 {
		m.oldest.CompareAndSwap(0, time.Now().UnixNano())
	}
}

// stored notes a batch that was taken then; waiting says whether something was
// received after it.
func (m *metrics) stored(batch schemas.Batch, taken time.Time, waiting bool) {
	m.flushed.Store(uint64(batch.Flush))
	if waiting {
		m.oldest.Store(taken.UnixNano())
	} else {
		m.oldest.Store(0)
	}
}
