package cdc

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/cdc/source"
	"walhook/schemas"
)

// metrics show the reader's lag and the WAL that the source retains for its slot. The
// names are part of the contract (docs/CONTRACT.md §6). Values that come from the
// source are NaN while it does not answer, since an old value would look current.
type metrics struct {
	serverEnd  atomic.Uint64 // the last WAL end that the server sent
	flushed    atomic.Uint64 // the stored flush position; 0 for unknown
	oldest     atomic.Int64  // when the oldest unstored change was received, in nanoseconds; 0 for none
	lag        lag
	state      func() State
	answers    atomic.Bool // the source answered the last query
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
			Help: "WAL that the source retains on its disk for the slot. NaN while the source does not answer.",
		}),
		limit: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walhook_slot_limit_bytes",
			Help: "WAL above which the source invalidates the slot, which is a gap (max_slot_wal_keep_size); +Inf for no limit. NaN while the source does not answer.",
		}),
		slot: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walhook_slot_wal_status",
			Help: "1 for the slot's pg_replication_slots.wal_status, 0 for the others; missing means that the slot does not exist.",
		}, []string{"status"}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_source_reconnects_total",
			Help: "Times that reading stopped and was retried, because of an error of the source or the outbox.",
		}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_source_gaps_total",
			Help: "Gaps that this process found in the WAL; the outbox lists each.",
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
		Help: "Published tables and partitions whose old rows, and so deletes, carry only the key. Known to the process that reads.",
	})
	m.refused.Set(math.NaN())
	m.partial.Set(math.NaN())
	m.unknown()
	reg.MustRegister(m.retained, m.limit, m.slot, m.reconnects, m.gaps, m.unreadable, m.refused, m.partial)
	m.registerFuncs(reg, state)
	return m
}

// registerFuncs registers the metrics that are computed at each scrape.
func (m *metrics) registerFuncs(reg prometheus.Registerer, state func() State) {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
	}
	gauge("walhook_source_lag_bytes",
		"WAL between the source's end, as last reported, and the stored position. NaN while the source does not answer, and until the outbox reports what is stored.",
		nil, m.lagBytes)
	gauge("walhook_source_lag_seconds",
		"Age of the oldest committed change that is not stored, from the source's own positions and this machine's clock; 0 for none. While the source does not answer, the time since everything was last stored; NaN if that is not known.",
		nil, func() float64 { return m.lagSeconds(time.Now()) })
	gauge("walhook_source_up", "1 while the source answers this process, else 0.", nil, func() float64 { return number(m.answers.Load()) })
	for _, one := range []State{Connecting, Standby, Reading, Unreadable} {
		gauge("walhook_source_state",
			"1 for the state of this process's reader, 0 for the others. Exactly one process reads; others wait as standby.",
			prometheus.Labels{"state": one.String()}, func() float64 { return number(state() == one) })
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// observed sets the metrics from a report of the slot.
func (m *metrics) observed(s source.SlotReport) {
	m.retained.Set(s.Retained)
	m.limit.Set(s.Limit)
	for _, status := range source.SlotStatuses() {
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
	for _, status := range source.SlotStatuses() {
		m.slot.WithLabelValues(status).Set(0)
	}
}

func (m *metrics) lagBytes() float64 {
	end, flushed := m.serverEnd.Load(), m.flushed.Load()
	switch {
	case !m.answers.Load() || flushed == 0:
		return math.NaN()
	case end <= flushed:
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

// received notes that a change waits to be stored. It does not use the change's commit
// time, which is by the clock of the source or of a server that the source replicates.
func (m *metrics) received() {
	if m.oldest.Load() == 0 {
		m.oldest.CompareAndSwap(0, time.Now().UnixNano())
	}
}

// stored notes that a batch is stored. taken is when append took it; waiting says
// whether more was received since.
func (m *metrics) stored(batch schemas.Batch, taken time.Time, waiting bool) {
	m.flushed.Store(uint64(batch.Flush))
	if waiting {
		m.oldest.Store(taken.UnixNano())
	} else {
		m.oldest.Store(0)
	}
}

const (
	// markEvery is how often watch asks for the end of the WAL.
	markEvery = 2 * time.Second

	// maxMarks bounds how many marks are kept.
	maxMarks = 256

	// standbyTolerance is how late a standby may learn what another process stored: an
	// idle reader stores its position every ten seconds.
	standbyTolerance = 15 * time.Second
)

// lag computes since when the WAL has held changes that are not stored. It keeps marks:
// the end of the WAL at an instant. All that was committed before that instant is
// stored once that end is, or once the source has sent all up to it and nothing waits.
type lag struct {
	mu       sync.Mutex
	marks    []mark    // not covered, in order; guarded by mu
	last     time.Time // of the latest mark; guarded by mu
	complete time.Time // of the latest mark that is covered; guarded by mu
	read     uint64    // the source has sent this session all up to here; 0 for none; guarded by mu
}

// mark is the end of the WAL at an instant. Changes between the mark before and this one
// were committed after since.
type mark struct {
	end   uint64
	at    time.Time
	since time.Time
}

// startsAt sets when the store last advanced: unstored changes were committed after
// that. It does nothing once this process has seen a covered mark itself.
func (l *lag) startsAt(stored time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.complete.IsZero() {
		return
	}
	l.complete = stored
	if l.last.IsZero() {
		l.last = stored
	}
	if len(l.marks) > 0 && stored.Before(l.marks[0].since) {
		l.marks[0].since = stored
	}
}

// mark notes the current end of the WAL.
func (l *lag) mark(end schemas.LSN, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := now
	if !l.last.IsZero() && now.Sub(l.last) > 3*markEvery {
		since = l.last // there was no mark meanwhile
	}
	l.last = now
	if len(l.marks) >= maxMarks {
		for i := 1; i < maxMarks/2; i++ { // merge pairs, with the earlier since
			l.marks[i] = mark{l.marks[2*i].end, l.marks[2*i].at, l.marks[2*i-1].since}
		}
		l.marks = l.marks[:maxMarks/2]
	}
	l.marks = append(l.marks, mark{uint64(end), now, since})
}

// reads notes that the source has sent all published changes up to end.
func (l *lag) reads(end schemas.LSN) {
	l.mu.Lock()
	l.read = max(l.read, uint64(end))
	l.mu.Unlock()
}

// begins resets what an earlier session was sent, since the source sends it again.
func (l *lag) begins() {
	l.mu.Lock()
	l.read = 0
	l.mu.Unlock()
}

// since is the instant after which the oldest unstored change was committed; zero for
// none. waiting says that received changes are not stored, and answers that the source
// answers.
func (l *lag) since(stored uint64, waiting, answers bool) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	covered := stored
	if !waiting {
		covered = max(covered, l.read)
	}
	n := 0
	for n < len(l.marks) && l.marks[n].end <= covered {
		l.complete = l.marks[n].at
		n++
	}
	l.marks = append(l.marks[:0], l.marks[n:]...)
	switch {
	case len(l.marks) > 0:
		return l.marks[0].since
	case !answers:
		return l.complete
	}
	return time.Time{}
}
