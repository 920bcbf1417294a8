package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/doctor"
	"walhook/internal/retry"
	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

const (
	// A chunk of a resync is appended in one transaction, for which changes of the source
	// may be waiting.
	resyncChunk      = 100
	resyncChunkBytes = 1 << 20

	// resyncRate is how many rows a second one resync sends at most, and resyncShare how
	// much longer than an append the pause after it is: others have the rest of the time.
	resyncRate  = 1000
	resyncShare = 2

	resyncTimeout = besideTimeout

	// settledWithin bounds how long the last event of a resync waits for the records
	// before it to be attempted.
	settledWithin = 5 * time.Second
	settledPoll   = 20 * time.Millisecond

	storedPoll = 5 * time.Millisecond

	// timelineStep is by how much the numbers of webhook-ids jump on another timeline of
	// the outbox, where some may be missing that receivers have seen.
	timelineStep = 1_000_000
)

// resyncPass is one pass of a resync.
type resyncPass struct {
	p *Publisher
	resync
	storedNumber int64 // numbered, as it is stored
	catalog      *catalog.Catalog
	revision     int64 // of the endpoint, when the pass began
	tracker      *tracker
	snapshot     Snapshot
	point        schemas.LSN
	began        time.Time

	filter   []string // of the webhook's schemas
	below    bool     // the webhook includes accounts below its own
	accounts []string
	schemaIn *schemas.Relation // of atSchema
	chunk    []SourceRow
	bytes    int
	last     []int64 // ids of the events that the last chunks appended
	over     bool
}

// resyncPass makes one pass. It returns nil when the resync is over.
func (p *Publisher) resyncPass(ctx context.Context, from Snapshots, opening chan struct{}, id int64) error {
	r, open, err := p.readResync(ctx, id)
	if err != nil || !open {
		return err
	}
	if r.gone {
		return p.endResync(ctx, &r, reasonGone)
	}
	s := &resyncPass{p: p, resync: r, storedNumber: r.numbered}
	reason, err := s.begin(ctx)
	if err != nil {
		return err
	}
	if reason != "" {
		return p.endResync(ctx, &r, reason)
	}
	defer s.end()
	// Before the snapshot: an account that comes below this one later begins with what is
	// committed then.
	if s.accounts, err = s.accountsOf(ctx); err != nil {
		return err
	}
	if err := s.open(ctx, from, opening); err != nil {
		return err
	}
	defer s.snapshot.Close(context.WithoutCancel(ctx))
	if err := s.stored(ctx); err != nil {
		return err
	}
	if err := s.count(ctx); err != nil {
		return err
	}
	if reason, err := s.send(ctx); err != nil {
		return err
	} else if reason != "" {
		return p.endResync(ctx, &s.resync, reason)
	}
	return s.finish(ctx)
}

// begin begins to track the endpoint's events. reason says why the endpoint can get no
// records.
func (s *resyncPass) begin(ctx context.Context) (reason string, err error) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return "", errNotPublishing
	}
	ctx, cancel := context.WithTimeoutCause(ctx, resyncTimeout, errors.New("begin a resync: timed out"))
	defer cancel()
	if err := p.followWebhooks(ctx); err != nil {
		return "", err
	}
	to := p.view.Webhook(s.account, s.endpoint)
	switch {
	case to == nil:
		return reasonGone, nil
	case !to.WantsRecords(s.schema, s.kind.String()):
		return endNoRecords, nil
	case s.schema != "" && p.view.Catalog.Schema(s.schema) == nil:
		return endSchemaGone, nil
	}
	if to.Subscription != nil {
		s.filter, s.below = to.Subscription.Schemas, to.Subscription.Subaccounts
	}
	s.catalog, s.revision, s.tracker = p.view.Catalog, to.Revision, p.trackers.begin(s.endpoint)
	if s.timeline != p.timeline.token {
		if s.timeline != "" {
			s.numbered = (s.numbered/timelineStep + 1) * timelineStep
		}
		s.timeline = p.timeline.token
	}
	return "", nil
}

func (s *resyncPass) end() {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.trackers.end(s.endpoint, s.tracker)
	if s.over {
		delete(s.p.partial, s.id)
	}
}

// open opens the snapshot.
func (s *resyncPass) open(ctx context.Context, from Snapshots, opening chan struct{}) (err error) {
	select {
	case opening <- struct{}{}:
		defer func() { <-opening }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.snapshot, err = from.OpenSnapshot(ctx, s.catalog); err != nil {
		return fmt.Errorf("open a snapshot of the source: %w", err)
	}
	s.point, s.began = s.snapshot.Point(), time.Now()
	return nil
}

// stored waits until all is stored that committed before the snapshot's position.
func (s *resyncPass) stored(ctx context.Context) error {
	p := s.p
	for schemas.LSN(p.stored.Load()) < s.point {
		// The reader of an idle source then does not wait for its next advance.
		p.awaited.Store(max(p.awaited.Load(), uint64(s.point)))
		if err := retry.Pause(ctx, storedPoll); err != nil {
			return err
		}
		if time.Since(s.began) > passTime {
			return errNextPass
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.tracker.valid() {
		return errNextPass
	}
	s.tracker.forget(s.point)
	return nil
}

// Awaited returns a position up to which somebody waits for the WAL to be stored; it may
// be stored already.
func (p *Publisher) Awaited() schemas.LSN { return schemas.LSN(p.awaited.Load()) }

// count stores, once, how many records there are to send.
func (s *resyncPass) count(ctx context.Context) error {
	if s.started {
		return nil
	}
	total := int64(0)
	for _, schema := range s.schemas() {
		if !s.wants(schema) {
			continue
		}
		n, err := s.snapshot.Count(ctx, SourceQuery{Schema: schema, Accounts: s.accounts})
		if err != nil {
			return fmt.Errorf("count the records of schema %s: %w", schema, err)
		}
		total += n
	}
	if _, err := s.p.store.pool.Exec(ctx, totalSQL, s.id, total); err != nil {
		return fmt.Errorf("store how many records there are: %w", err)
	}
	return nil
}

// wants reports whether the endpoint got records of a schema when the pass began.
func (s *resyncPass) wants(schema string) bool {
	return len(s.filter) == 0 || slices.Contains(s.filter, schema)
}

// schemas are those whose records are sent, in order.
func (s *resyncPass) schemas() []string {
	if s.schema != "" {
		return []string{s.schema}
	}
	return resyncOrder(s.catalog)
}

// send appends the rows of all schemas that are left. reason says why that cannot be.
func (s *resyncPass) send(ctx context.Context) (reason string, err error) {
	order := s.schemas()
	at := max(slices.Index(order, s.atSchema), 0)
	for _, schema := range order[at:] {
		if schema != s.atSchema {
			s.atSchema, s.atKey = schema, nil
		}
		if !s.wants(schema) {
			continue
		}
		relation, refused := s.snapshot.Relation(schema)
		if relation == nil {
			if s.schema != "" {
				return endSchemaUnread + refused, nil
			}
			s.p.log.Info("resync leaves out a schema", zap.Int64("resync", s.id), zap.String("schema", schema), zap.String("reason", refused))
			continue
		}
		s.schemaIn = relation
		if err := s.sendSchema(ctx, schema); err != nil {
			return "", err
		}
	}
	return "", nil
}

// resyncOrder are the schemas of a catalog, parents before their children.
func resyncOrder(cat *catalog.Catalog) []string {
	depth := func(s *catalog.Schema) (n int) {
		for s != nil && s.Owner.Schema != "" && n < len(cat.Schemas) {
			s, n = cat.Schema(s.Owner.Schema), n+1
		}
		return n
	}
	list := slices.Clone(cat.Schemas)
	slices.SortFunc(list, func(a, b *catalog.Schema) int {
		return cmp.Or(cmp.Compare(depth(a), depth(b)), strings.Compare(a.Name, b.Name))
	})
	names := make([]string, len(list))
	for i, schema := range list {
		names[i] = schema.Name
	}
	return names
}

func (s *resyncPass) sendSchema(ctx context.Context, schema string) error {
	query := SourceQuery{Schema: schema, Accounts: s.accounts, After: s.atKey}
	err := s.snapshot.Rows(ctx, query, func(row SourceRow) error {
		s.chunk = append(s.chunk, row)
		for _, value := range row.Tuple {
			s.bytes += len(value.Text)
		}
		if len(s.chunk) < resyncChunk && s.bytes < resyncChunkBytes {
			return nil
		}
		return s.appendChunk(ctx)
	})
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && s.atKey != nil && strings.HasPrefix(pgErr.Code, "22") && query.After != nil {
		// The key has other columns than when the resync began: it sends the schema again.
		if _, err := s.p.store.pool.Exec(ctx, forgetResyncKeySQL, s.id); err != nil {
			return err
		}
		return errNextPass
	}
	if err == nil {
		err = s.appendChunk(ctx)
	}
	return err
}

// appendChunk appends the rows that were read, and waits for the next to be due.
func (s *resyncPass) appendChunk(ctx context.Context) error {
	rows := s.chunk
	s.chunk, s.bytes = nil, 0
	if len(rows) == 0 {
		return nil
	}
	kept, err := s.ownedAsKnown(ctx, rows)
	if err != nil {
		return err
	}
	began := time.Now()
	err = isolate(kept, isDataFault, func(rows []SourceRow) error { return s.append(ctx, rows) }, func(row SourceRow, cause error) error {
		s.p.store.setAside(ctx, loopResync, strconv.FormatInt(s.id, 10)+" "+s.atSchema+":"+row.Key, s.endpoint, asideUnstorable, cause)
		return nil
	})
	if err != nil {
		return err
	}
	if time.Since(s.began) > passTime {
		return errNextPass
	}
	pause := max(time.Duration(len(rows))*time.Second/resyncRate-time.Since(began), resyncShare*time.Since(began))
	return retry.Pause(ctx, pause)
}

// append appends rows as one transaction, without those of which the endpoint has got a
// newer state, and stores how far the resync is. No row at all stores nothing.
func (s *resyncPass) append(ctx context.Context, rows []SourceRow) error {
	if len(rows) == 0 {
		return nil
	}
	again := false
	err := s.commit(ctx, func(*route.Endpoint) (*route.Plan, *route.ResyncStep) {
		step := &route.ResyncStep{Schema: s.atSchema, Key: s.atKey, Numbered: s.numbered}
		now := time.Now()
		var made []route.Made
		for _, row := range rows {
			record := s.atSchema + ":" + row.Key
			superseded, partial := s.tracker.superseded(record, s.point)
			if again = partial && !s.p.givesUp(s.id, record); again {
				break
			}
			if step.Key = row.At; superseded {
				continue
			}
			step.Numbered++
			made = append(made, route.Made{
				WebhookID: fmt.Sprintf("sync_%d_%d", s.id, step.Numbered), Kind: s.kind, Account: row.Account, Key: row.Key,
				Relation: s.schemaIn, Row: row.Tuple, Endpoint: s.endpoint, At: now,
			})
		}
		return route.RouteMade(s.p.view, made), step
	})
	if err == nil && again {
		return errNextPass
	}
	return err
}

// commit commits the plan that plan makes, and with it the step. The endpoint that plan gets
// is as it was when the pass began.
func (s *resyncPass) commit(ctx context.Context, plan func(*route.Endpoint) (*route.Plan, *route.ResyncStep)) error {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return errNotPublishing
	}
	ctx, cancel := context.WithTimeoutCause(ctx, resyncTimeout, errors.New("append a resync: timed out"))
	defer cancel()
	p.rotate(ctx)
	if err := p.followWebhooks(ctx); err != nil {
		return err
	}
	to := p.view.Webhook(s.account, s.endpoint)
	if !s.tracker.valid() || to == nil || to.Revision != s.revision || p.view.Catalog != s.catalog {
		// What it wants or whether it is there may have changed since: a record may have
		// changed without an event for it.
		return errNextPass
	}
	made, step := plan(to)
	step.ID, step.From, step.Timeline = s.id, s.storedNumber, s.timeline
	step.Sent = s.sent + int64(len(made.Events))
	if step.Done {
		step.Sent = s.sent
	}
	made.Resync = step
	err := p.commitResync(ctx, made)
	if err != nil {
		return err
	}
	if !step.Done {
		p.store.metrics.resynced.Add(float64(len(made.Events)))
		for i := range made.Events {
			s.last = append(s.last, made.Events[i].ID)
		}
		s.last = s.last[max(len(s.last)-resyncChunk, 0):]
	}
	s.numbered, s.sent, s.atKey = step.Numbered, step.Sent, step.Key
	s.storedNumber = step.Numbered
	return nil
}

// commitResync commits a plan of a resync. The caller holds mu.
func (p *Publisher) commitResync(ctx context.Context, plan *route.Plan) error {
	err := p.commit(ctx, plan)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errUncertain):
		p.view.NextID = plan.NextID() // ids that may be taken are not given again
	case replaced(err):
		p.live = false // until the reader, whose next append meets the same, takes over again
	}
	return fmt.Errorf("append a resync: %w", err)
}

// finish tells the endpoint that it has got all records.
func (s *resyncPass) finish(ctx context.Context) error {
	if err := s.attempted(ctx); err != nil {
		return err
	}
	err := s.commit(ctx, func(to *route.Endpoint) (*route.Plan, *route.ResyncStep) {
		body := fmt.Appendf(nil, `{"type":"update","schema":"resync","status":"done","verbose":"%s","request":`, doctor.Count(int(s.sent), "record"))
		body = append(pgjson.AppendString(body, strconv.AppendInt(nil, s.id, 10)), '}')
		return route.RouteTo(s.p.view, to, route.Event{
			Record: "resync/" + strconv.FormatInt(s.id, 10), WebhookID: fmt.Sprintf("sync_%d_%d", s.id, s.numbered+1),
			Schema: "resync", Type: schemas.Update.String(), CommittedAt: time.Now(), Body: body,
		}), &route.ResyncStep{Numbered: s.numbered + 1, Schema: s.atSchema, Key: s.atKey, Done: true}
	})
	if err == nil {
		s.over = true
		s.p.log.Info("resync done", zap.Int64("resync", s.id), zap.Int64("endpoint", s.endpoint), zap.Int64("records", s.sent))
	}
	return err
}

// attemptedSQL says whether an active endpoint has events, of those given, that nobody has
// attempted.
const attemptedSQL = `
	SELECT EXISTS (SELECT FROM walhook.endpoint WHERE id = $1 AND state = 'active') AND EXISTS (
		SELECT FROM unnest($2::bigint[]) AS e(id) WHERE NOT EXISTS (SELECT FROM walhook.attempt a WHERE a.endpoint = $1 AND a.event_id = e.id))`

// attempted waits, not for long, until the last records are attempted: events of different
// records may overtake each other, and this one is to come last.
func (s *resyncPass) attempted(ctx context.Context) error {
	for end := time.Now().Add(settledWithin); len(s.last) > 0 && time.Now().Before(end); {
		var waits bool
		if err := s.p.store.pool.QueryRow(ctx, attemptedSQL, s.endpoint, s.last).Scan(&waits); err != nil {
			return fmt.Errorf("check whether the last records are attempted: %w", err)
		}
		if !waits {
			return nil
		}
		if err := retry.Pause(ctx, settledPoll); err != nil {
			return err
		}
	}
	return nil
}
