package outbox

import (
	"context"
	"math"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// addStanding makes the gauges of how the outbox as a whole stands: every
// process tells the same. They are NaN before they are measured, and while
// the outbox does not answer: neither zero passes for all is well, nor for trouble.
func (m *metrics) addStanding(reg prometheus.Registerer) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m.up = gauge("walhook_outbox_up", "1 while the outbox answers this process, else 0.")
	m.gaps = gauge("walhook_gaps_open", "Gaps in the WAL that nobody has accepted yet; nothing is read until somebody does.")
	m.senders = gauge("walhook_senders", "Sending processes with a valid lease.")
	m.unowned = gauge("walhook_shards_unowned", "Shards, of 32, that no live sender holds: their endpoints get nothing.")
	m.maintained = gauge("walhook_maintenance_success_timestamp_seconds",
		"When this process last finished maintenance of the outbox, or found another process doing it; before the first time, when it started.")
	m.endpoints = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "walhook_endpoints",
		Help: "Endpoints by state; only active ones get events.",
	}, []string{"state"})
	m.ahead = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "walhook_partitions_ahead",
		Help: "Partitions ready beyond the one in use, by table; at least 2 when maintenance works, and with none the next day's rows cannot be stored.",
	}, []string{"table"})
	m.up.Set(math.NaN())
	m.unknownStanding()
	m.maintained.SetToCurrentTime()
	m.retention = gauge("walhook_retention_seconds", "How long this process keeps events, attempts and dead letters (--retention).")
	reg.MustRegister(m.retention, m.up, m.endpoints, m.gaps, m.senders, m.unowned, m.ahead, m.maintained)
}

// partitionedTables are those that maintenance makes partitions of.
func partitionedTables() []string { return append(dailyTables(), "event") }

const (
	standingCountsSQL = `
		SELECT (SELECT count(*) FROM walhook.gap WHERE accepted_at IS NULL),
			(SELECT count(*) FROM walhook.sender WHERE lease_until > clock_timestamp()),
			(SELECT count(*) FROM walhook.shard h WHERE NOT EXISTS (
				SELECT FROM walhook.sender s WHERE s.id = h.sender AND s.lease_until > clock_timestamp()))`

	// A partition's name ends with its number or day.
	aheadSQL = `
		SELECT p.relname::text, count(*) FROM pg_inherits i
		JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
		WHERE p.relnamespace = 'walhook'::regnamespace AND p.relname = ANY ($1)
			AND substring(c.relname FROM '\d+$')::bigint > CASE p.relname WHEN 'event' THEN $2
				ELSE to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD')::bigint END
		GROUP BY 1`
)

// standing is what the gauges are set to.
type standing struct {
	gaps, senders, unowned float64
	endpoints              map[EndpointState]int
	ahead                  map[string]int
}

func (s *Store) measureStanding(ctx context.Context) (now standing, err error) {
	err = s.pool.QueryRow(ctx, standingCountsSQL).Scan(&now.gaps, &now.senders, &now.unowned)
	if err == nil {
		now.endpoints, err = s.countEndpoints(ctx)
	}
	var next int64
	if err == nil {
		err = s.pool.QueryRow(ctx, currentEventIDSQL).Scan(&next)
	}
	if err != nil {
		return now, err
	}
	rows, err := s.pool.Query(ctx, aheadSQL, partitionedTables(), eventPartition(next))
	if err != nil {
		return now, err
	}
	now.ahead = map[string]int{}
	for _, table := range partitionedTables() {
		now.ahead[table] = 0
	}
	var table string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&table, &n}, func() error {
		now.ahead[table] = n
		return nil
	})
	return now, err
}

func (m *metrics) setStanding(now standing) {
	m.gaps.Set(now.gaps)
	m.senders.Set(now.senders)
	m.unowned.Set(now.unowned)
	for state, n := range now.endpoints {
		m.endpoints.WithLabelValues(string(state)).Set(float64(n))
	}
	for table, n := range now.ahead {
		m.ahead.WithLabelValues(table).Set(float64(n))
	}
}

// unknownStanding says that nothing is known of the outbox.
func (m *metrics) unknownStanding() {
	nan := math.NaN()
	for _, g := range []prometheus.Gauge{m.gaps, m.senders, m.unowned} {
		g.Set(nan)
	}
	for _, state := range endpointStates() {
		m.endpoints.WithLabelValues(string(state)).Set(nan)
	}
	for _, table := range partitionedTables() {
		m.ahead.WithLabelValues(table).Set(nan)
	}
}
