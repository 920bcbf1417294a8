package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Publisher is the one writer of the event log. It fits what package cdc asks of a
// store; what cdc calls is called by one goroutine at a time, and beside it
// [Publisher.Run] appends what is in the inbox.
//
// What it knows of the outbox is its view, which it changes once a plan is
// committed. After an error from Append it is not known what is stored: TakeOver
// comes first.
type Publisher struct {
	store   *Store
	catalog *catalog.Catalog
	log     *zap.Logger

	// mu lets TakeOver, Append and the inbox write one after the other. All
	// below but watermark and visible, which have locks of their own, and replayOrders is
	// used under it.
	mu       sync.Mutex
	epoch    int64
	timeline timeline    // that all of this was read on
	live     bool        // the last TakeOver found a position and no append failed since
	view     *route.View // what is stored, as far as routing asks
	flush    schemas.LSN // as it is stored with the position
	position positionRow // the newest that this publisher knows to be stored
	webhooks webhooksMark
	damaged  map[int64]bool // webhooks that cannot be read
	// lookedAgain is when they were last looked at.
	lookedAgain time.Time
	// Webhooks that ask for the same share a subscription, by its stored form, and those
	// whose days end alike a calendar.
	subscriptions map[string]*route.Subscription
	calendars     map[calendarSettings]route.Calendar
	partition     time.Time // when the partition in use began
	keysReused    int       // batches for which inserted records may have keys that were used before
	// followsFirst is how many appends still read the webhooks before they route. Others
	// leave it to their fence to say that they have not changed.
	followsFirst int
	listing      listing
	warned       map[string]bool // what was named once in the logs
	otherCatalog bool            // the logs say that the catalog in force is another one
	spare        *route.Plan     // the last one, whose memory the next one uses
	loading      *loading        // while it reads whole tables; otherwise nil
	bound        *time.Timer     // of what is done within a time limit; otherwise nil
	watermark    watermark
	visible      visibleMarks
	given        *catalog.Catalog // by which a snapshot is read, whichever is in force before it
	resyncAsked  chan struct{}    // gets a signal when a request was stored
	trackers     trackers
	partial      map[int64]partialRecord // by resync
	stored       atomic.Uint64           // flush, for who does not hold mu
	awaited      atomic.Uint64           // what a resync waits for to be stored
	replayOrders map[int64]*replayOrder  // of requests under way; the loop of replays alone uses it

	clock func(context.Context) (time.Time, error) // the outbox's; tests have another
}

// Publisher prepares to publish by catalog. It writes nothing before TakeOver.
func (s *Store) Publisher(catalog *catalog.Catalog) *Publisher {
	s.metrics.initChanges(catalog)
	s = s.on(s.pools.publishing)
	return &Publisher{store: s, catalog: catalog, given: catalog, log: s.log, warned: map[string]bool{}, resyncAsked: make(chan struct{}, 1), clock: s.outboxClock}
}

// pingTimeout bounds the question whether the outbox answers.
const pingTimeout = 3 * time.Second

// Ping asks whether the outbox answers, within three seconds.
func (p *Publisher) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pingTimeout, errors.New("timed out"))
	defer cancel()
	if err := p.store.pool.Ping(ctx); err != nil {
		return fmt.Errorf("check whether the outbox answers: %w", err)
	}
	return nil
}

const advancedSQL = `
	SELECT flush_lsn::text, extract(epoch FROM clock_timestamp() - stored_at)::float8 FROM walhook.position ORDER BY id DESC LIMIT 1`

// Advanced says how far the source's log is stored, by whatever process, and
// when that was stored, by this process's clock: zero where no position is.
func (p *Publisher) Advanced(ctx context.Context) (flush schemas.LSN, at time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pingTimeout, errors.New("timed out"))
	defer cancel()
	var text string
	var ago float64
	err = p.store.pool.QueryRow(ctx, advancedSQL).Scan(&text, &ago)
	if isNoRows(err) {
		return 0, time.Time{}, nil
	}
	if err == nil {
		flush, err = schemas.ParseLSN(text)
	}
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("read which position is stored: %w", err)
	}
	return flush, time.Now().Add(-time.Duration(max(ago, 0) * float64(time.Second))), nil
}

const takeEpochSQL = `
	UPDATE walhook.epoch SET epoch = epoch + 1, publisher = $1, taken_at = clock_timestamp()
	RETURNING epoch`

// TakeOver makes this process the only publisher: a new epoch first, which
// waits for a running append of the old one and refuses its next, then the
// position, which therefore is final. The checkpoint is zero when no first
// snapshot is stored.
//
// It also appends what endpoints missed in a gap that was accepted.
//
// It takes as long as the outbox's rows take to arrive, and fails when none does for
// stallTimeout.
func (p *Publisher) TakeOver(ctx context.Context) (checkpoint schemas.Checkpoint, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = false
	p.trackers.lose()    // of an append that failed nobody knows what it stored
	p.store.pool.Reset() // no connection to the server of an earlier timeline stays
	err = p.watched(ctx, func(ctx context.Context) (err error) {
		// First, so that an epoch of a later timeline goes with no earlier one.
		if p.timeline, err = p.store.noteTimeline(ctx); err != nil {
			return err
		}
		p.loading.answered()
		name, _ := os.Hostname()
		if err := p.store.pool.QueryRow(ctx, takeEpochSQL, fmt.Sprintf("%s/%d", name, os.Getpid())).Scan(&p.epoch); err != nil {
			return err
		}
		p.loading.answered()
		if err := p.takeCatalog(ctx); err != nil {
			return err
		}
		p.loading.answered()
		if checkpoint, err = p.load(ctx); err == nil {
			p.loaded(p.loading)
		}
		return err
	})
	if err == nil && checkpoint != (schemas.Checkpoint{}) {
		var again bool
		if again, err = p.tellMissed(ctx); err == nil && again {
			err = p.watched(ctx, func(ctx context.Context) (err error) {
				checkpoint, err = p.load(ctx)
				return err
			})
		}
	}
	if err != nil {
		return schemas.Checkpoint{}, fmt.Errorf("take over as publisher: %w", err)
	}
	p.watermark.restart(checkpoint.Flush)
	p.visible.restart(checkpoint.Flush, p.view.NextID)
	p.stored.Store(uint64(checkpoint.Flush))
	p.store.fresh.restart(p.timeline.token)
	p.live = checkpoint != schemas.Checkpoint{}
	return checkpoint, nil
}

const (
	sourceSQL = `
		SELECT state, system_id, timeline, database, slot, publication, publication_oid, catalog, coalesce(visible_published, '') FROM walhook.source`

	positionSQL = `
		SELECT id, stored_at, commit_lsn::text, ordinal, xid, flush_lsn::text, next_event_id, NOT messages, committed_at
		FROM walhook.position ORDER BY id DESC LIMIT 1`
)

// Checkpoint reads what is stored of the reader's progress, without taking
// over. It is zero when no first snapshot is stored.
func (s *Store) Checkpoint(ctx context.Context) (schemas.Checkpoint, error) {
	checkpoint, _, _, err := s.checkpoint(ctx)
	return checkpoint, err
}

// checkpoint also returns the row of the stored position, and the id of the next event.
func (s *Store) checkpoint(ctx context.Context) (c schemas.Checkpoint, row positionRow, nextID int64, err error) {
	var commit, flush string
	var committed *time.Time
	err = s.pool.QueryRow(ctx, positionSQL).Scan(&row.id, &row.at, &commit, &c.Position.Ordinal, &c.Xid, &flush, &nextID, &c.NoMessages, &committed)
	if isNoRows(err) {
		return schemas.Checkpoint{}, positionRow{}, 1, nil
	}
	if err != nil {
		return c, row, 0, fmt.Errorf("read the stored position: %w", err)
	}
	if committed != nil {
		c.CommittedAt = *committed
	}
	var state string
	src := &c.Source
	err = s.pool.QueryRow(ctx, sourceSQL).Scan(&state, &src.SystemID, &src.Timeline, &src.Database, &src.Slot, &src.Publication, &src.PublicationOID, &src.Catalog, &c.Published)
	if isNoRows(err) || err == nil && state != "ready" {
		// A snapshot starts over; the event log's ids continue.
		return schemas.Checkpoint{}, row, nextID, nil
	}
	if err != nil {
		return c, row, 0, fmt.Errorf("read the stored source: %w", err)
	}
	if c.Position.Commit, err = schemas.ParseLSN(commit); err != nil {
		return c, row, 0, err
	}
	if c.Flush, err = schemas.ParseLSN(flush); err == nil {
		c.OutboxMoved, err = s.beginsTimeline(ctx, row.id)
	}
	return c, row, nextID, err
}

const (
	partitionBeganSQL = `SELECT appended_at FROM walhook.event WHERE id >= $1 ORDER BY id LIMIT 1`

	// Nothing was appended since a gap was accepted.
	gapIsNewestSQL = `
		SELECT coalesce((SELECT max(accepted_at) FROM walhook.gap) > coalesce((SELECT appended_at FROM walhook.event ORDER BY id DESC LIMIT 1), '-infinity'), false)`
)

func (p *Publisher) loadPartition(ctx context.Context) error {
	start := eventPartition(p.view.NextID) * eventPartitionSize
	err := p.store.pool.QueryRow(ctx, partitionBeganSQL, start).Scan(&p.partition)
	if isNoRows(err) {
		p.partition, err = time.Now(), nil
	}
	if err != nil {
		return fmt.Errorf("read when the event log's partition began: %w", err)
	}
	// After a gap the next partition comes first, whatever the age of this one: the outbox
	// may have lost events that senders have read, and their ids are not given again.
	var gap bool
	if err := p.store.pool.QueryRow(ctx, gapIsNewestSQL).Scan(&gap); err != nil {
		return fmt.Errorf("read whether a gap was accepted: %w", err)
	}
	if gap {
		p.partition = time.Time{}
	}
	return nil
}

// partitionsPerRetention sets how long a partition of the event log is in use: it
// is dropped a partition at a time, so what is kept overshoots retention
// by at most one part.
const partitionsPerRetention = 7

// rotate moves on to the next partition of the event log when the present one is old
// enough. The next one must exist; if it cannot be made now, the present one
// serves a while longer.
func (p *Publisher) rotate(ctx context.Context) {
	age := p.store.cfg.Retention / partitionsPerRetention
	if time.Since(p.partition) < age || p.view.NextID%eventPartitionSize < 2 {
		return
	}
	p.partition = time.Now().Add(time.Minute - age) // when making fails: not again for a minute
	next := (eventPartition(p.view.NextID) + 1) * eventPartitionSize
	if err := p.store.MakePartitions(ctx); err != nil {
		p.log.Warn("creating partitions failed", zap.Error(err))
		return
	}
	p.view.NextID, p.partition = next, time.Now()
}

// watermark knows up to which instant, by the source's clock, all that was
// committed is stored. The reader's watch samples where the WAL ended when; the
// appends say what of it is stored.
type watermark struct {
	mu    sync.Mutex
	flush schemas.LSN
	until time.Time
	marks []mark // not stored yet, in order
}

type mark struct {
	end schemas.LSN
	at  time.Time
}

// maxMarks bounds what is remembered while nothing is stored. The oldest are
// kept: they are reached first.
const maxMarks = 1000

// ObserveSourceTime notes that the source's WAL ended at end at an instant of its clock.
func (p *Publisher) ObserveSourceTime(end schemas.LSN, at time.Time) {
	r := &p.watermark
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.marks) < maxMarks {
		r.marks = append(r.marks, mark{end, at})
	}
	r.settle()
}

// stored notes how far the WAL is stored.
func (r *watermark) stored(flush schemas.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush = max(r.flush, flush)
	r.settle()
}

// restart forgets what another session observed.
func (r *watermark) restart(flush schemas.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush, r.until, r.marks = flush, time.Time{}, nil
}

func (r *watermark) settle() {
	for len(r.marks) > 0 && r.marks[0].end <= r.flush {
		r.until = r.marks[0].at
		r.marks = r.marks[1:]
	}
}

// at is the instant; zero while it is not known.
func (r *watermark) at() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until
}
