package outbox

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// metrics are the publisher's side of the log. The names are part of the
// contract (docs/CONTRACT.md §6).
type metrics struct {
	changes  *prometheus.CounterVec
	appended prometheus.Counter
	skipped  *prometheus.CounterVec

	deadLetters prometheus.Counter
	setAside    *prometheus.CounterVec
	backlog     prometheus.Gauge
	oldest      prometheus.Gauge

	up         prometheus.Gauge
	endpoints  *prometheus.GaugeVec
	gaps       prometheus.Gauge
	senders    prometheus.Gauge
	unowned    prometheus.Gauge
	ahead      *prometheus.GaugeVec
	maintained prometheus.Gauge
	retention  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_changes_total",
			Help: "Changes of the catalog's tables, by schema and type.",
		}, []string{"schema", "type"}),
		appended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_events_appended_total",
			Help: "Events appended to the event log, one per endpoint.",
		}),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_changes_skipped_total",
			Help: "Changes that made no event, by reason.",
		}, []string{"reason"}),
		deadLetters: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_dead_letters_total",
			Help: "Events dead-lettered by any part of this process: refused or out of retries, too large, expired with their feed, past retention.",
		}),
		setAside: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_items_set_aside_total",
			Help: "Items that a loop set aside because they cannot be stored or read, by loop and reason.",
		}, []string{"loop", "reason"}),
		backlog: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walhook_outbox_backlog",
			Help: "Events that wait for an active endpoint, an estimate; zero is exact. NaN while the outbox does not answer.",
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walhook_outbox_oldest_seconds",
			Help: "Age of the oldest event that waits for an active endpoint, since its append; zero for none. NaN while the outbox does not answer.",
		}),
	}
	for _, reason := range route.Reasons() {
		m.skipped.WithLabelValues(reason)
	}
	for l := range loops() {
		for _, reason := range asideReasons() {
			m.setAside.WithLabelValues(string(l), reason)
		}
	}
	m.backlog.Set(math.NaN())
	m.oldest.Set(math.NaN())
	reg.MustRegister(m.changes, m.appended, m.skipped, m.deadLetters, m.setAside, m.backlog, m.oldest)
	m.addStanding(reg)
	return m
}

// initChanges shows every schema and type from the start, as zero.
func (m *metrics) initChanges(catalog *catalog.Catalog) {
	for _, schema := range catalog.Schemas {
		for _, kind := range []schemas.Kind{schemas.Insert, schemas.Update, schemas.Delete} {
			m.changes.WithLabelValues(schema.Name, kind.String())
		}
	}
}
