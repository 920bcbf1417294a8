package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/schemas"
)

const reportSQL = `
	SELECT CASE WHEN s.slot_name IS NULL THEN 'missing' ELSE coalesce(s.wal_status, 'lost') END, coalesce(s.active, false),
		coalesce(s.confirmed_flush_lsn, '0/0')::text, pg_current_wal_lsn()::text,
		coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::float8,
		CASE WHEN current_setting('max_slot_wal_keep_size') LIKE '-%' THEN -1
			ELSE pg_size_bytes(current_setting('max_slot_wal_keep_size')) END::float8,
		r.flush_lag, clock_timestamp(), coalesce(s.active_pid, 0), coalesce(a.application_name, ''),
		coalesce(host(a.client_addr), CASE WHEN a.client_port = -1 THEN 'local' ELSE '' END), coalesce(a.wait_event, ''),
		coalesce((SELECT string_agg(format('%s (%s)', n.name, CASE WHEN o.slot_name IS NULL THEN 'which does not exist' WHEN o.active THEN 'which is behind' ELSE 'which nobody reads' END), ', ')
			FROM unnest(string_to_array(replace(replace(current_setting('synchronized_standby_slots', true), ' ', ''), '"', ''), ',')) AS n (name)
			LEFT JOIN pg_replication_slots o ON o.slot_name = n.name), '')
	FROM (VALUES ($1)) AS wanted (name) LEFT JOIN pg_replication_slots s ON s.slot_name = wanted.name
	LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid`

// slotMissing stands among the values of pg_replication_slots.wal_status for a
// slot that does not exist.
const slotMissing = "missing"

func slotStatuses() []string {
	return []string{"reserved", "extended", "unreserved", "lost", slotMissing}
}

// SlotReport is what the source says of a slot, and what that costs it.
type SlotReport struct {
	// WALStatus is pg_replication_slots.wal_status, or "missing" for a slot that
	// does not exist.
	WALStatus string
	Active    bool        // somebody reads it
	Confirmed schemas.LSN // what its reader has confirmed; 0 where it does not exist
	WALEnd    schemas.LSN // the end of the source's log
	At        time.Time   // when that was, by the source's clock
	Retained  float64     // bytes of the log that are kept for it
	Limit     float64     // bytes that are kept at most; +Inf for no limit
	// FlushLag is how long its reader took to confirm what it last did; 0 where
	// nobody reads, or all is confirmed.
	FlushLag time.Duration

	Reader    SlotReader // who reads it
	waitEvent string     // what its WAL sender waits for
	standbys  string     // the slots of synchronized_standby_slots, and how they stand
}

// SlotReader is the session that reads a slot. What the role may not see is "".
type SlotReader struct {
	PID         int // 0 for nobody
	Application string
	Address     string // local for a socket of the server's machine
}

// Foreign says whether the reader is another program than walhook.
func (s SlotReader) Foreign() bool {
	return s.PID != 0 && s.Application != "" && s.Application != applicationName
}

// String names the reader for people.
func (s SlotReader) String() string {
	text := fmt.Sprintf("pid %d", s.PID)
	if s.Application != "" {
		text += ", application " + s.Application
	}
	if s.Address != "" {
		text += ", address " + s.Address
	}
	return text
}

// Held says why the source sends nothing though there is something: it waits for
// its own standbys (PostgreSQL 17, synchronized_standby_slots); "" for no such
// reason.
func (s SlotReport) Held() string {
	if s.waitEvent != "WaitForStandbyConfirmation" {
		return ""
	}
	return "it waits for the standbys of synchronized_standby_slots: " + s.standbys
}

// ReportSlot asks the source for its slot.
func ReportSlot(ctx context.Context, cfg Config) (SlotReport, error) {
	cfg = cfg.withDefaults()
	source, err := newCatalogReader(ctx, cfg)
	if err != nil {
		return SlotReport{}, err
	}
	defer source.close(ctx)
	return source.report(ctx, cfg.Slot)
}

func (r *catalogReader) report(ctx context.Context, slot string) (s SlotReport, err error) {
	var confirmed, end string
	var lag *time.Duration
	err = r.conn.QueryRow(ctx, reportSQL, slot).Scan(&s.WALStatus, &s.Active, &confirmed, &end, &s.Retained, &s.Limit, &lag, &s.At,
		&s.Reader.PID, &s.Reader.Application, &s.Reader.Address, &s.waitEvent, &s.standbys)
	if err != nil {
		return s, fmt.Errorf("look at slot %s: %w", slot, err)
	}
	if s.Limit < 0 {
		s.Limit = math.Inf(1)
	}
	if lag != nil {
		s.FlushLag = *lag
	}
	var endErr error
	s.Confirmed, err = schemas.ParseLSN(confirmed)
	s.WALEnd, endErr = schemas.ParseLSN(end)
	return s, errors.Join(err, endErr)
}

// observe keeps the metrics of slot and source true while the reader does not
// read: as a standby, and while the outbox is away, which is when the slot
// fills the source's disk. While it reads, watch does so with its own session.
func (r *Reader) observe(ctx context.Context) {
	var source *catalogReader
	defer func() {
		if source != nil {
			source.close(ctx)
		}
	}()
	for {
		r.askAdvanced(ctx)
		if r.State() == Reading {
			if source != nil {
				source.close(ctx)
				source = nil
			}
		} else {
			source = r.look(ctx, source)
		}
		if !sleep(ctx, r.watchEvery) {
			return
		}
	}
}

// askAdvanced has the lag of a backlog that was there before this process count
// from when the store last advanced.
func (r *Reader) askAdvanced(ctx context.Context) {
	if r.advanced {
		return
	}
	at, err := r.store.Advanced(ctx)
	if err != nil {
		r.log.Debug("store cannot be asked when it last advanced", zap.Error(err))
		return
	}
	r.advanced = true
	if !at.IsZero() {
		r.metrics.lag.startsAt(at)
	}
}

// Pause waits between two runs, and keeps the metrics of slot and source true
// meanwhile. It is false when ctx ended first.
func (r *Reader) Pause(ctx context.Context, d time.Duration) bool {
	observing, stop := context.WithCancel(ctx)
	var observer sync.WaitGroup
	observer.Go(func() { r.observe(observing) })
	defer observer.Wait()
	defer stop()
	return sleep(ctx, d)
}

// look asks the source once, over the session that it gets and answers; nil
// stands for none. What is wrong is told by whoever tries to read.
func (r *Reader) look(ctx context.Context, source *catalogReader) *catalogReader {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errors.New("look at the slot: no answer in time"))
	defer cancel()
	var err error
	if source == nil {
		source, err = newCatalogReader(ctx, r.cfg)
	}
	var report SlotReport
	if err == nil {
		report, err = source.report(ctx, r.cfg.Slot)
	}
	if err != nil {
		if source != nil {
			source.close(ctx)
		}
		if r.State() != Reading {
			r.metrics.unknown()
		}
		r.log.Debug("source cannot be asked", zap.Error(err))
		return nil
	}
	if r.State() != Reading {
		r.metrics.observed(report)
		r.metrics.flushed.Store(uint64(report.Confirmed))
	}
	return source
}

// lookTimeout bounds connecting and asking.
const lookTimeout = 15 * time.Second
