package outbox

import "github.com/prometheus/client_golang/prometheus"

// metrics are the publisher's side of the log. The names are part of the
// contract (CONTRACT.md §6).
type metrics struct {
	changes  *prometheus.CounterVec
	appended prometheus.Counter
	skipped  *prometheus.CounterVec
}

// The reasons of walhook_changes_skipped_total.
const (
	skipNoTable        = "not_in_catalog"
	skipNoEndpoint     = "no_endpoint"
	skipNoOwner        = "no_owner"
	skipOwnerUnknown   = "owner_unknown"
	skipNoKey          = "no_key"
	skipTruncate       = "truncate"
	skipMessage        = "malformed_message"
	skipForeignMessage = "foreign_message"
	skipOutsideTx      = "non_transactional_message"
	skipResult         = "malformed_result"
	skipTooLarge       = "too_large"
	skipMalformed      = "malformed_value"
)

func skipReasons() []string {
	return []string{skipNoTable, skipNoEndpoint, skipNoOwner, skipOwnerUnknown, skipNoKey, skipTruncate,
		skipMessage, skipForeignMessage, skipOutsideTx, skipResult, skipTooLarge, skipMalformed}
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_changes_total",
			Help: "Changes read from the source that the catalog names, by schema and type.",
		}, []string{"schema", "type"}),
		appended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_events_appended_total",
			Help: "Events appended to the log, one per endpoint.",
		}),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_changes_skipped_total",
			Help: "Changes that became no event, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range skipReasons() {
		m.skipped.WithLabelValues(reason)
	}
	reg.MustRegister(m.changes, m.appended, m.skipped)
	return m
}
