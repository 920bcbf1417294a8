package cdc

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/schemas"
)

// metrics show how far the reader is behind its source. The names are part of
// the contract (CONTRACT.md §6).
type metrics struct {
	serverEnd  atomic.Uint64 // the newest WAL end that the server named
	flushed    atomic.Uint64 // the stored flush position
	oldest     atomic.Int64  // commit time in nanoseconds of the oldest transaction not yet stored; 0 for none
	retained   prometheus.Gauge
	reconnects prometheus.Counter
	gaps       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		retained: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walhook_slot_retained_bytes",
			Help: "WAL that the source keeps for the slot; on its disk.",
		}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_source_reconnects_total",
			Help: "Times the replication connection was lost.",
		}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_source_gaps_total",
			Help: "Gaps found in the log; each is listed in the outbox.",
		}),
	}
	lagBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "walhook_source_lag_bytes",
		Help: "WAL between the source's end, as it last said, and the stored position.",
	}, func() float64 { return float64(m.lagBytes()) })
	lagSeconds := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "walhook_source_lag_seconds",
		Help: "Age of the oldest committed change that was received and is not yet stored; 0 for none.",
	}, func() float64 { return m.lag(time.Now()).Seconds() })
	reg.MustRegister(m.retained, m.reconnects, m.gaps, lagBytes, lagSeconds)
	return m
}

func (m *metrics) lagBytes() uint64 {
	end, flushed := m.serverEnd.Load(), m.flushed.Load()
	if end <= flushed || flushed == 0 {
		return 0
	}
	return end - flushed
}

func (m *metrics) lag(now time.Time) time.Duration {
	oldest := m.oldest.Load()
	if oldest == 0 {
		return 0
	}
	return max(now.Sub(time.Unix(0, oldest)), 0)
}

// received notes a transaction that waits to be stored.
func (m *metrics) received(committedAt time.Time) {
	m.oldest.CompareAndSwap(0, committedAt.UnixNano())
}

// stored notes a stored batch; waiting says whether something received is not.
func (m *metrics) stored(batch schemas.Batch, waiting bool) {
	m.flushed.Store(uint64(batch.Flush))
	switch {
	case !waiting:
		m.oldest.Store(0)
	case len(batch.Changes) > 0:
		m.oldest.Store(batch.Changes[len(batch.Changes)-1].CommittedAt.UnixNano())
	}
}
