package outbox

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// metrics are the publisher's side of the event log. The names are part of the
// contract (docs/CONTRACT.md §6).
type metrics struct {
	changes  *prometheus.CounterVec
	appended prometheus.Counter
	skipped  *prometheus.CounterVec

	resynced    prometheus.Counter
	webhooks    prometheus.Counter
	takeOver    prometheus.Gauge
	reconciled  *prometheus.CounterVec
	deadLetters prometheus.Counter
	setAside    *prometheus.CounterVec
	// notifications are counted by direction.
	notifications *prometheus.CounterVec
	backlog       prometheus.Gauge
	oldest        prometheus.Gauge

	up         prometheus.Gauge
	endpoints  *prometheus.GaugeVec
	gaps       prometheus.Gauge
	senders    prometheus.Gauge
	unowned    prometheus.Gauge
	ahead      *prometheus.GaugeVec
	maintained prometheus.Gauge
	retention  prometheus.Gauge
	// In seconds: how long a changed catalog waits, and for how long a resync and what was
	// missed in a gap have stood still.
	pending, resyncStalled, missedStalled prometheus.Gauge
}

// The directions of walhook_notifications_total.
const (
	notificationSent     = "sent"
	notificationFailed   = "failed"   // to be sent; it is tried again
	notificationReceived = "received" // from another process
	notificationIgnored  = "ignored"  // received, and not of walhook
)

// newMetrics has the gauge walhook_notified say whether an instant is still ahead.
func newMetrics(reg prometheus.Registerer, notifiedUntil func() time.Time) *metrics {
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
		resynced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_resync_records_total",
			Help: "Records whose present state was sent again, one per endpoint: by a resync, or as the initial state of a webhook.",
		}),
		webhooks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_webhooks_read_total",
			Help: "Webhooks that the publisher read: all when it takes over, then those that changed.",
		}),
		takeOver: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walhook_take_over_seconds",
			Help: "How long the last take-over as publisher in this process took to read the outbox; 0 before the first one.",
		}),
		reconciled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_reconciled_total",
			Help: "What was missed in a gap in the WAL and was appended for at least one endpoint after the gap was accepted, by type.",
		}, []string{"type"}),
		deadLetters: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walhook_dead_letters_total",
			Help: "Events dead-lettered by any part of this process: refused or out of retries, too large, expired with their feed, past retention.",
		}),
		setAside: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_items_set_aside_total",
			Help: "Items that a loop set aside because they cannot be stored or read, by loop and reason.",
		}, []string{"loop", "reason"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_notifications_total",
			Help: "Notifications between processes by way of the outbox, by direction.",
		}, []string{"direction"}),
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
	for _, kind := range []schemas.Kind{schemas.Insert, schemas.Update, schemas.Delete} {
		m.reconciled.WithLabelValues(kind.String())
	}
	for _, of := range catalog.RowTables() {
		m.reconciled.WithLabelValues(string(of))
	}
	for l := range loops() {
		for _, reason := range asideReasons() {
			m.setAside.WithLabelValues(string(l), reason)
		}
	}
	for _, direction := range []string{notificationSent, notificationFailed, notificationReceived, notificationIgnored} {
		m.notifications.WithLabelValues(direction)
	}
	notified := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "walhook_notified",
		Help: "1 while this process is notified of appended events, whichever process appends them; 0 while it polls for those of others.",
	}, func() float64 {
		if time.Now().Before(notifiedUntil()) {
			return 1
		}
		return 0
	})
	m.backlog.Set(math.NaN())
	m.oldest.Set(math.NaN())
	reg.MustRegister(m.changes, m.appended, m.skipped, m.resynced, m.webhooks, m.takeOver, m.reconciled, m.deadLetters, m.setAside, m.notifications, notified, m.backlog, m.oldest)
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

// addStanding makes the gauges of how the outbox as a whole stands: every
// process reports the same. They are NaN before they are measured, and while
// the outbox does not answer: neither zero passes for all is well, nor for trouble.
func (m *metrics) addStanding(reg prometheus.Registerer) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m.up = gauge("walhook_outbox_up", "1 while the outbox answers this process, else 0.")
	m.gaps = gauge("walhook_gaps_open", "Gaps in the WAL that nobody has accepted yet; nothing is read until somebody does.")
	m.pending = gauge("walhook_catalog_pending_seconds", "How long a changed catalog has waited to be in force; 0 for none.")
	m.resyncStalled = gauge("walhook_resync_stalled_seconds", "For how long the resync in progress that stands for longest has appended nothing; 0 for none.")
	m.missedStalled = gauge("walhook_reconciliation_stalled_seconds", "For how long nothing was appended of what endpoints missed in a gap; 0 when nothing is left.")
	m.senders = gauge("walhook_senders", "Sending processes with a valid lease.")
	m.unowned = gauge("walhook_shards_unowned", "Shards, of 32, that no live sender holds: their endpoints get nothing.")
	m.maintained = gauge("walhook_maintenance_success_timestamp_seconds",
		"When this process last finished maintenance of the outbox, or found another process doing it; before the first time, when it started.")
	m.endpoints = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "walhook_endpoints",
		Help: "Endpoints of present accounts by state; only active ones get events.",
	}, []string{"state"})
	m.ahead = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "walhook_partitions_ahead",
		Help: "Partitions ready beyond the one in use, by table; at least 2 when maintenance works, and with none the next day's rows cannot be stored.",
	}, []string{"table"})
	m.up.Set(math.NaN())
	m.unknownStanding()
	m.maintained.SetToCurrentTime()
	m.retention = gauge("walhook_retention_seconds", "How long this process keeps events, attempts and dead letters (--retention).")
	reg.MustRegister(m.retention, m.up, m.endpoints, m.gaps, m.pending, m.resyncStalled, m.missedStalled, m.senders, m.unowned, m.ahead, m.maintained)
}

// partitionedTables are those that maintenance makes partitions of.
func partitionedTables() []string { return append(dailyTables(), "event") }

const (
	standingCountsSQL = `
		SELECT (SELECT count(*) FROM walhook.gap WHERE accepted_at IS NULL),
			(SELECT count(*) FROM walhook.sender WHERE lease_until > clock_timestamp()),
			(SELECT count(*) FROM walhook.shard h WHERE NOT EXISTS (
				SELECT FROM walhook.sender s WHERE s.id = h.sender AND s.lease_until > clock_timestamp())),
			coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - asked_at), 0)::float8 FROM walhook.catalog WHERE state = 'pending'), 0)`

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
	pending                float64 // seconds
	resync, missed         float64 // seconds
	endpoints              map[EndpointState]int
	ahead                  map[string]int
}

func (s *Store) measureStanding(ctx context.Context) (now standing, err error) {
	err = s.pool.QueryRow(ctx, standingCountsSQL).Scan(&now.gaps, &now.senders, &now.unowned, &now.pending)
	if err == nil {
		now.resync, now.missed, err = s.measureProgress(ctx)
	}
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
	m.pending.Set(now.pending)
	m.resyncStalled.Set(now.resync)
	m.missedStalled.Set(now.missed)
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
	for _, g := range []prometheus.Gauge{m.gaps, m.pending, m.resyncStalled, m.missedStalled, m.senders, m.unowned} {
		g.Set(nan)
	}
	for _, state := range EndpointStates() {
		m.endpoints.WithLabelValues(string(state)).Set(nan)
	}
	for _, table := range partitionedTables() {
		m.ahead.WithLabelValues(table).Set(nan)
	}
}

// measureEvery is how often the backlog is measured.
const measureEvery = 10 * time.Second

// Bounds of one measurement, whatever waits: it never counts the event log.
const (
	measureLanes   = 500     // of those that stand still, the ones that do so for longest
	measureEvents  = 100     // looked at for each of them
	measureRetries = 100_000 // rows of retry
	measureLog     = 1000    // events looked at for the oldest
)

// A time that is none is far away, or else one row would leave everybody's
// backlog unknown.
const (
	// How many ids the event log has used, up to each of its partitions: ids are
	// dense within one. The last of a partition is found by its index.
	logEndsSQL = `SELECT next_event_id - 1 FROM walhook.position ORDER BY id DESC LIMIT 1`
	lastIDSQL  = `SELECT id FROM walhook.event WHERE id < $1 ORDER BY id DESC LIMIT 1`

	tailsSQL = `SELECT tail FROM walhook.shard`

	oldestTailSQL = `
		SELECT coalesce(extract(epoch FROM -walhook.until(e.appended_at)), 0)::float8
		FROM (
			SELECT * FROM walhook.event WHERE id > (SELECT min(tail) FROM walhook.shard) ORDER BY id LIMIT $1) e
		JOIN walhook.shard s ON s.id = e.endpoint % $2 AND e.id > s.tail
		JOIN walhook.endpoint p ON p.id = e.endpoint AND p.state = 'active'
		ORDER BY e.id LIMIT 1`

	retriesSQL = `
		SELECT count(*), extract(epoch FROM -walhook.until((
			SELECT e.appended_at FROM walhook.event e WHERE e.id = min(r.event_id))))::float8
		FROM (
			SELECT r.event_id FROM walhook.retry r JOIN walhook.endpoint p ON p.id = r.endpoint AND p.state = 'active' LIMIT $1) r`
)

// Each lane that stands still: how many events wait there, at most $2 of
// them looked at, how far those reach, and how old the first is.
var standingSQL = `
		SELECT s.tail, l.cursor, w.n, w.last, coalesce(extract(epoch FROM -walhook.until(w.oldest)), 0)::float8
		FROM (
			SELECT l.endpoint, l.cursor FROM walhook.lane l JOIN walhook.endpoint p ON p.id = l.endpoint AND p.state = 'active'
			WHERE l.behind ORDER BY l.cursor LIMIT $1) l
		JOIN walhook.shard s ON s.id = l.endpoint % $3 AND s.tail > l.cursor
		CROSS JOIN LATERAL (
			SELECT count(*) AS n, max(id) AS last, min(appended_at) AS oldest FROM (
				SELECT id, appended_at FROM walhook.event e
				WHERE ` + OfEndpointSQL("l.endpoint", "l.cursor", "s.tail") + ` ORDER BY e.endpoint, e.id LIMIT (SELECT $2::bigint)) e) w
		WHERE w.n > 0`

// Measure keeps the gauges of the outbox, walhook_outbox_backlog and
// walhook_outbox_oldest_seconds first of all, until ctx ends. Every process
// reports the same for the outbox as a whole.
//
// The backlog is what waits for active endpoints: what the shards' tails have
// not passed yet, what lanes that stand still have before them, and what is in
// retry. Ids stand for events where counting them would take reading the event log:
// a shard counts as having a thirty-second of what was appended, and a lane as
// going on as its first events begin. So it is exact when it is zero, and in
// lanes with few events; tails are stored every few seconds.
func (s *Store) Measure(ctx context.Context) error {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		s.measureAll(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// measureAll sets every gauge that is about the outbox as a whole, and to NaN
// what could not be measured.
func (s *Store) measureAll(ctx context.Context) {
	s = s.on(s.pools.upkeep)
	m := s.metrics
	b, err := s.measure(ctx)
	if err != nil {
		b = backlog{events: math.NaN(), oldest: math.NaN()}
	}
	m.backlog.Set(b.events)
	m.oldest.Set(b.oldest)

	ctx, cancel := context.WithTimeoutCause(ctx, measureEvery, errors.New("measure the outbox: timed out"))
	defer cancel()
	up := 0.0
	if s.Ping(ctx) == nil {
		up = 1
	}
	m.up.Set(up)
	now, standingErr := s.measureStanding(ctx)
	if standingErr != nil {
		m.unknownStanding()
	} else {
		m.setStanding(now)
	}
	if err = errors.Join(err, standingErr); err != nil {
		s.log.Debug("cannot measure the outbox", zap.Error(err))
	}
}

// backlog is what waits: how many events, and for how many seconds the oldest.
type backlog struct{ events, oldest float64 }

func (b *backlog) add(events float64, oldest *float64) {
	b.events += events
	if oldest != nil {
		b.oldest = max(b.oldest, *oldest)
	}
}

func (s *Store) measure(ctx context.Context) (b backlog, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, measureEvery, errors.New("measure the backlog: timed out"))
	defer cancel()
	used, err := s.idsInUse(ctx)
	if err != nil {
		return b, err
	}
	if err = s.measureTails(ctx, &b, used); err != nil {
		return b, err
	}
	if err = s.measureLanes(ctx, &b, used); err != nil {
		return b, err
	}
	var rows float64
	var oldest *float64
	err = s.pool.QueryRow(ctx, retriesSQL, measureRetries).Scan(&rows, &oldest)
	b.add(rows, oldest)
	return b, err
}

func (s *Store) measureTails(ctx context.Context, b *backlog, used idsInUse) error {
	tails, err := collect[int64](s.pool.Query(ctx, tailsSQL))
	if err != nil {
		return err
	}
	var oldest float64
	err = s.pool.QueryRow(ctx, oldestTailSQL, measureLog, Shards).Scan(&oldest)
	if isNoRows(err) {
		return nil // what the tails have not passed is for nobody who is sent to
	}
	waiting := 0.0
	for _, tail := range tails {
		waiting += used.between(tail, math.MaxInt64) / Shards
	}
	b.add(max(waiting, 1), &oldest)
	return err
}

func (s *Store) measureLanes(ctx context.Context, b *backlog, used idsInUse) error {
	rows, err := s.pool.Query(ctx, standingSQL, measureLanes, measureEvents, Shards)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var tail, cursor, last int64
		var events, oldest float64
		if err := rows.Scan(&tail, &cursor, &events, &last, &oldest); err != nil {
			return err
		}
		if events == measureEvents {
			events = max(events, math.Round(events*used.between(cursor, tail)/used.between(cursor, last)))
		}
		b.add(events, &oldest)
	}
	return rows.Err()
}

// idsInUse are the stretches of ids that events have, a partition each.
type idsInUse []struct{ first, last int64 }

func (s *Store) idsInUse(ctx context.Context) (idsInUse, error) {
	var used idsInUse
	var last int64
	err := s.pool.QueryRow(ctx, logEndsSQL).Scan(&last)
	for err == nil && last > 0 {
		first := max(eventPartition(last)*eventPartitionSize, 1)
		used = append(used, struct{ first, last int64 }{first, last})
		err = s.pool.QueryRow(ctx, lastIDSQL, first).Scan(&last)
	}
	if isNoRows(err) {
		err = nil
	}
	return used, err
}

// between counts the ids in use after one and up to another.
func (u idsInUse) between(after, upto int64) float64 {
	n := int64(0)
	for _, stretch := range u {
		n += max(min(upto, stretch.last)-max(after, stretch.first-1), 0)
	}
	return float64(n)
}

const countEndpointsSQL = `
	SELECT CASE WHEN p.state IN ('cleared', 'disabled') OR p.state = 'active' AND a.endpoint IS NULL THEN p.state ELSE 'unusable' END, count(*)
	FROM walhook.endpoint p LEFT JOIN (` + AsideEndpointsSQL + `) a ON a.endpoint = p.id
	WHERE p.deleted_at IS NULL AND p.ended_at IS NULL GROUP BY 1`

// countEndpoints has every state, those without endpoints as zero.
func (s *Store) countEndpoints(ctx context.Context) (map[EndpointState]int, error) {
	rows, err := s.pool.Query(ctx, countEndpointsSQL)
	if err != nil {
		return nil, err
	}
	counts := map[EndpointState]int{}
	for _, state := range EndpointStates() {
		counts[state] = 0
	}
	var state EndpointState
	var n int
	_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error {
		counts[state] = n
		return nil
	})
	return counts, err
}
