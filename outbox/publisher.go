package outbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Publisher is the one writer of the log. It fits what package cdc asks of a
// store; what cdc calls is called by one goroutine at a time, and beside it
// [Publisher.Run] appends what is in the inbox.
//
// What it knows of accounts and owners is right only as long as its appends
// succeed: after an error from Append, TakeOver comes first.
type Publisher struct {
	store   *Store
	catalog *catalog.Catalog
	log     *zap.Logger

	// mu lets TakeOver, Append and the inbox write one after the other. All
	// below is written under it.
	mu         sync.Mutex
	epoch      int64
	live       bool                // the last TakeOver found a position and no append failed since
	nextID     int64               // of the next event
	flush      schemas.LSN         // as it is stored with the position
	partition  time.Time           // when the partition in use began
	routes     map[string]*route   // by account: its own endpoint
	webhooks   map[string][]*route // by account: its other ones
	wanted     map[string]bool     // the hooks that any of them asks for
	version    int64               // of the webhooks as they are known
	parents    map[string]string   // by account: the one above
	departed   departed
	derives    map[*catalog.Schema]bool // whose rules make events that any of them asks for
	daily      []*route                 // those of them that are told once a day
	reached    reached
	nextEnd    time.Time // of the next of their days to end; zero for none
	owners     *ownerCache
	unknown    map[string]bool // schemas some of whose records' owners are not known
	forgotten  map[string]bool // schemas of which no record's owner is known
	keysReused int             // batches for which inserted records may have keys that were used before
	columns    *columnCache
	plans      map[*schemas.Relation]*catalog.Plan
	routed     routed
	listing    listing
	warned     map[string]bool // what was named once in the log

	clock func(context.Context) (time.Time, error) // the outbox's; tests have another
}

// route is where an account's events go. The router owns it; revision and id
// are set by the transaction that creates or changes the endpoint.
type route struct {
	account  string
	endpoint int64 // 0 until it is inserted
	revision int64
	url      string
	secret   string // the one in the account's column; "" where walhook made it, or it was not seen yet

	subscription *subscription // of a webhook; nil for the account's own endpoint
	day          *openDay      // of a webhook with daily delivery; nil for the others
}

// Publisher prepares to publish by catalog. It writes nothing before TakeOver.
func (s *Store) Publisher(catalog *catalog.Catalog) *Publisher {
	s.metrics.initChanges(catalog)
	s = s.on(s.pools.publishing)
	return &Publisher{store: s, catalog: catalog, log: s.log, warned: map[string]bool{}, clock: s.outboxClock}
}

const (
	takeEpochSQL = `
		UPDATE walhook.epoch SET epoch = epoch + 1, publisher = $1, taken_at = clock_timestamp()
		RETURNING epoch`

	sourceSQL = `
		SELECT state, system_id, timeline, database, slot, publication, publication_oid, catalog FROM walhook.source`

	positionSQL = `
		SELECT commit_lsn::text, ordinal, xid, flush_lsn::text, next_event_id, NOT messages
		FROM walhook.position ORDER BY id DESC LIMIT 1`

	routesSQL = `
		SELECT account, id, revision, coalesce(url, ''), CASE WHEN own_secret THEN secret ELSE '' END, ` + strictSQL + `, ` + strictURLSQL + ` FROM walhook.endpoint
		WHERE webhook = 'account' AND state <> 'cleared' AND ended_at IS NULL AND ($1::bigint[] IS NULL OR id = ANY ($1))`

	routeIDsSQL = `SELECT id FROM walhook.endpoint WHERE webhook = 'account' AND state <> 'cleared' AND ended_at IS NULL ORDER BY id`

	partitionBeganSQL = `
		SELECT appended_at FROM walhook.event WHERE id >= $1 ORDER BY id LIMIT 1`
)

// publishTimeout bounds an append and a take-over: whoever gets no answer for
// so long, because the network swallows it, gives the slot to the standby. The
// server gives up each statement earlier.
const publishTimeout = statementTimeout * 3 / 2

// pingTimeout bounds the question whether the outbox answers.
const pingTimeout = 3 * time.Second

// Ping asks whether the outbox answers, within three seconds.
func (p *Publisher) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pingTimeout, errors.New("no answer in time"))
	defer cancel()
	if err := p.store.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ask whether the outbox answers: %w", err)
	}
	return nil
}

const advancedSQL = `
	SELECT extract(epoch FROM clock_timestamp() - stored_at)::float8 FROM walhook.position ORDER BY id DESC LIMIT 1`

// Advanced says when the position was last stored, by this process's clock: zero
// where none is.
func (p *Publisher) Advanced(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pingTimeout, errors.New("no answer in time"))
	defer cancel()
	var ago float64
	err := p.store.pool.QueryRow(ctx, advancedSQL).Scan(&ago)
	if isNoRows(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read when the position was stored: %w", err)
	}
	return time.Now().Add(-time.Duration(max(ago, 0) * float64(time.Second))), nil
}

// TakeOver makes this process the only publisher: a new epoch first, which
// waits for a running append of the old one and refuses its next, then the
// position, which therefore is final. The checkpoint is zero when no first
// snapshot is stored.
func (p *Publisher) TakeOver(ctx context.Context) (schemas.Checkpoint, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout, errors.New("take over as publisher: no answer in time"))
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = false
	name, _ := os.Hostname()
	if err := p.store.pool.QueryRow(ctx, takeEpochSQL, fmt.Sprintf("%s/%d", name, os.Getpid())).Scan(&p.epoch); err != nil {
		return schemas.Checkpoint{}, fmt.Errorf("take over as publisher: %w", err)
	}
	checkpoint, err := p.load(ctx)
	if err != nil {
		return schemas.Checkpoint{}, err
	}
	p.reached.restart(checkpoint.Flush)
	p.live = checkpoint != schemas.Checkpoint{}
	return checkpoint, nil
}

// load reads back all that a publisher knows, and the position that it is of.
func (p *Publisher) load(ctx context.Context) (schemas.Checkpoint, error) {
	checkpoint, nextID, err := p.store.checkpoint(ctx)
	if err != nil {
		return checkpoint, err
	}
	if err := p.store.loadAside(ctx); err != nil {
		return checkpoint, err
	}
	p.nextID, p.flush = nextID, checkpoint.Flush
	p.owners, p.columns = newOwnerCache(), newColumnCache()
	p.plans = map[*schemas.Relation]*catalog.Plan{}
	if err := p.loadUnknown(ctx); err != nil {
		return checkpoint, err
	}
	if err := p.loadRoutes(ctx); err != nil {
		return checkpoint, err
	}
	if err := p.loadWebhooks(ctx); err != nil {
		return checkpoint, err
	}
	if p.parents, p.departed, err = p.store.loadParents(ctx, checkpoint.Position); err != nil {
		return checkpoint, err
	}
	return checkpoint, p.loadPartition(ctx)
}

// Checkpoint reads what is stored of the reader's progress, without taking
// over. It is zero when no first snapshot is stored.
func (s *Store) Checkpoint(ctx context.Context) (schemas.Checkpoint, error) {
	checkpoint, _, err := s.checkpoint(ctx)
	return checkpoint, err
}

func (s *Store) checkpoint(ctx context.Context) (c schemas.Checkpoint, nextID int64, err error) {
	var commit, flush string
	err = s.pool.QueryRow(ctx, positionSQL).Scan(&commit, &c.Position.Ordinal, &c.Xid, &flush, &nextID, &c.NoMessages)
	if isNoRows(err) {
		return schemas.Checkpoint{}, 1, nil
	}
	if err != nil {
		return c, 0, fmt.Errorf("read the stored position: %w", err)
	}
	var state string
	src := &c.Source
	err = s.pool.QueryRow(ctx, sourceSQL).Scan(&state, &src.SystemID, &src.Timeline, &src.Database, &src.Slot, &src.Publication, &src.PublicationOID, &src.Catalog)
	if isNoRows(err) || err == nil && state != "ready" {
		// A snapshot starts over; the log's ids go on.
		return schemas.Checkpoint{}, nextID, nil
	}
	if err != nil {
		return c, 0, fmt.Errorf("read the stored source: %w", err)
	}
	if c.Position.Commit, err = schemas.ParseLSN(commit); err != nil {
		return c, 0, err
	}
	c.Flush, err = schemas.ParseLSN(flush)
	return c, nextID, err
}

// loadRoutes reads the accounts' own endpoints. A row that cannot be read is set
// aside: its account is taken for one without an endpoint.
func (p *Publisher) loadRoutes(ctx context.Context) error {
	p.routes = map[string]*route{}
	err := p.readRoutes(ctx, nil)
	if err != nil && isReadFault(err) {
		var ids []int64
		if ids, err = collect[int64](p.store.pool.Query(ctx, routeIDsSQL)); err == nil {
			err = isolate(ids, isReadFault, func(ids []int64) error { return p.readRoutes(ctx, ids) }, func(id int64, cause error) error {
				p.store.setAside(ctx, loopAccounts, strconv.FormatInt(id, 10), id, asideUnreadable, cause)
				return nil
			})
		}
	}
	if err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	return nil
}

// readRoutes reads those with the ids, or all for nil.
func (p *Publisher) readRoutes(ctx context.Context, ids []int64) error {
	rows, err := p.store.pool.Query(ctx, routesSQL, ids)
	if err != nil {
		return err
	}
	r := &route{}
	var strict, strictURL bool
	var damaged, well []int64
	_, err = pgx.ForEachRow(rows, []any{&r.account, &r.endpoint, &r.revision, &r.url, &r.secret, &strict, &strictURL}, func() (err error) {
		one := *r
		of := holder{r.account, AccountWebhook}
		var urlErr error
		if one.url, urlErr = p.store.secrets.openURL(r.url, of, strictURL); urlErr != nil {
			one.url = r.url // whatever comes is another
		}
		if one.secret, err = p.store.secrets.open(r.secret, of, strict && r.secret != ""); err != nil {
			one.secret = "" // as one that was not seen yet
		}
		if err != nil || urlErr != nil {
			damaged = append(damaged, one.endpoint)
		} else if p.store.aside.any() {
			well = append(well, one.endpoint)
		}
		p.routes[one.account] = &one
		return nil
	})
	for _, id := range well {
		p.store.wellAgain(ctx, loopAccounts, strconv.FormatInt(id, 10))
	}
	for _, id := range damaged {
		p.store.setAside(ctx, loopAccounts, strconv.FormatInt(id, 10), id, asideSecret, &badItem{asideSecret, reasonSecret})
	}
	return err
}

func (p *Publisher) loadPartition(ctx context.Context) error {
	start := eventPartition(p.nextID) * eventPartitionSize
	err := p.store.pool.QueryRow(ctx, partitionBeganSQL, start).Scan(&p.partition)
	if isNoRows(err) {
		p.partition, err = time.Now(), nil
	}
	if err != nil {
		return fmt.Errorf("read when the log's partition began: %w", err)
	}
	return nil
}

// Append stores a batch in one transaction: its events, what it teaches of
// accounts and owners, and the position. Where the server refuses it because of
// its data, it is stored in several, in order, each with the position that it
// reaches; a change that cannot be stored by itself is listed as unrouted. After
// an error it is not known whether the batch was stored; TakeOver tells.
func (p *Publisher) Append(ctx context.Context, batch schemas.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]int, len(batch.Changes))
	for i := range all {
		all[i] = i
	}
	err := isolate(all, isDataFault, func(part []int) error {
		return p.appendPart(ctx, &batch, span{first: first(part), end: first(part) + len(part)})
	}, func(i int, cause error) error { return p.appendAlone(ctx, &batch, i, cause) })
	if err != nil {
		p.live = false
	}
	return err
}

func first(part []int) int {
	if len(part) == 0 {
		return 0
	}
	return part[0]
}

// span is a part of a batch, and how much of it is routed.
type span struct {
	first, end int
	depth      depth
}

// depth says how much of a change is stored.
type depth byte

const (
	whole    depth = iota // all of it
	listed                // no event: it is unrouted. What it says of accounts and owners holds
	unlisted              // nothing but that it is unrouted, and whose its record is is not known any more
)

// appendAlone stores a change that the server refuses as it is: as much of it as
// can be stored, so that what follows goes to the right accounts.
func (p *Publisher) appendAlone(ctx context.Context, batch *schemas.Batch, i int, cause error) error {
	c := &batch.Changes[i]
	p.store.setAside(ctx, loopAppend, c.Position.String(), 0, asideUnstorable, cause)
	err := p.appendPart(ctx, batch, span{i, i + 1, listed})
	if isDataFault(err) {
		err = p.appendPart(ctx, batch, span{i, i + 1, unlisted})
	}
	return err
}

// appendPart stores a part of a batch. After a refusal because of data all is as
// it was before.
func (p *Publisher) appendPart(ctx context.Context, batch *schemas.Batch, part span) error {
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout, errors.New("append: no answer in time"))
	defer cancel()
	p.rotate(ctx)
	if err := p.followWebhooks(ctx); err != nil {
		return err
	}
	nextID, gone := p.nextID, departed{p.departed.commit, maps.Clone(p.departed.above)}
	r := newRouter(p, batch.Changes)
	r.part = part
	if err := p.routeAndStore(ctx, batch, r); err != nil {
		if isDataFault(err) {
			if loadErr := p.unlearn(ctx, r, nextID, gone); loadErr != nil {
				return loadErr
			}
		}
		return err
	}
	r.count()
	p.flush = partOf(batch, part, p.flush).Flush
	p.reached.stored(p.flush)
	if len(r.events) > 0 {
		p.store.signalAppended()
	}
	if len(r.dayEnds) > 0 {
		p.store.signalInbox()
	}
	r.done()
	return nil
}

// partOf is the position that a part of a batch reaches. Of the transaction that
// an earlier part ends in the xid is not known, unless it is the batch's last.
func partOf(batch *schemas.Batch, part span, flush schemas.LSN) schemas.Batch {
	if part.end == len(batch.Changes) {
		return *batch
	}
	reached := *batch
	reached.Changes, reached.Position, reached.Flush = nil, batch.Changes[part.end-1].Position, flush
	if reached.Position.Commit != batch.Position.Commit {
		reached.Xid = 0
	}
	return reached
}

// unlearn takes back what routing a part taught this publisher.
func (p *Publisher) unlearn(ctx context.Context, r *router, nextID int64, gone departed) error {
	if r.taughtAccounts() {
		_, err := p.load(ctx)
		return err
	}
	p.nextID, p.departed, p.owners = nextID, gone, newOwnerCache()
	return nil
}

func (p *Publisher) routeAndStore(ctx context.Context, batch *schemas.Batch, r *router) error {
	if err := r.fetchOwners(ctx); err != nil {
		return err
	}
	if err := r.fetchColumns(ctx); err != nil {
		return err
	}
	if err := r.lookAtClock(ctx); err != nil {
		return err
	}
	r.route()
	before := p.listing.clone()
	r.unrouted = p.listing.bound(r.unrouted, time.Now())
	reached := partOf(batch, r.part, p.flush)
	if err := p.append(ctx, reached, r); err != nil {
		p.listing = before
		return fmt.Errorf("append %d changes up to %s: %w", r.part.end-r.part.first, reached.Position, err)
	}
	return nil
}

// batchesOfReuse is how long records are looked for before they are inserted
// once one was there: whoever uses keys again is likely to go on.
const batchesOfReuse = 100

func (p *Publisher) append(ctx context.Context, batch schemas.Batch, r *router) error {
	r.owners.mayExist = p.keysReused > 0
	p.keysReused = max(p.keysReused-1, 0)
	err := p.store.append(ctx, p.epoch, p.nextID, batch, r)
	if !r.owners.mayExist && isKnownOwner(err) {
		r.owners.mayExist, p.keysReused = true, batchesOfReuse
		err = p.store.append(ctx, p.epoch, p.nextID, batch, r)
	}
	return err
}

// partitionsPerRetention sets how long a partition of the log is in use: the
// log is dropped a partition at a time, so what is kept overshoots retention
// by at most one part.
const partitionsPerRetention = 7

// rotate moves on to the next partition of the log when the present one is old
// enough. The next one must exist; if it cannot be made now, the present one
// serves a while longer.
func (p *Publisher) rotate(ctx context.Context) {
	age := p.store.cfg.Retention / partitionsPerRetention
	if time.Since(p.partition) < age || p.nextID%eventPartitionSize < 2 {
		return
	}
	p.partition = time.Now().Add(time.Minute - age) // when making fails: not again for a minute
	next := (eventPartition(p.nextID) + 1) * eventPartitionSize
	if err := p.store.MakePartitions(ctx); err != nil {
		p.log.Warn("cannot make partitions", zap.Error(err))
		return
	}
	p.nextID, p.partition = next, time.Now()
}
