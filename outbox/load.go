package outbox

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/outbox/seal"
	"walhook/schemas"
)

// What a publisher knows of the outbox is read here when it takes over. What changes
// afterwards is read by view.go and webhooks.go.

// load reads back all that a publisher knows, and the position that it is of. Owners and
// the columns of accounts are not among it: they are looked up for each batch.
func (p *Publisher) load(ctx context.Context) (checkpoint schemas.Checkpoint, err error) {
	view := route.NewView(p.catalog)
	var position positionRow
	if checkpoint, position, view.NextID, err = p.store.checkpoint(ctx); err != nil {
		return checkpoint, err
	}
	p.loading.answered()
	if err := p.store.loadAside(ctx); err != nil {
		return checkpoint, err
	}
	p.loading.answered()
	// What was appended, and lost with a server that failed over, has been read by
	// senders: its ids are not given again, by this publisher or another one.
	if view.NextID < p.timeline.firstEvent {
		view.NextID = p.timeline.firstEvent
		if err := p.store.makePartitions(ctx, view.NextID); err != nil {
			return checkpoint, err
		}
		p.loading.answered()
	}
	if p.view != nil {
		view.NextID = max(view.NextID, p.view.NextID)
	}
	view.MaxEventBytes, view.StoredURL = p.store.cfg.MaxEventBytes, p.store.encoding.url
	p.view, p.flush, p.position, p.spare = view, checkpoint.Flush, position, nil
	if err := p.loadRoutes(ctx); err != nil {
		return checkpoint, err
	}
	if err := p.loadWebhooks(ctx); err != nil {
		return checkpoint, err
	}
	if err := p.loadParents(ctx, checkpoint.Position); err != nil {
		return checkpoint, err
	}
	if err := p.loadUnknown(ctx); err != nil {
		return checkpoint, err
	}
	p.loading.answered()
	return checkpoint, p.loadPartition(ctx)
}

// loaded logs what a take-over read, and how long it took.
func (p *Publisher) loaded(l *loading) {
	took := time.Since(l.began)
	p.store.metrics.takeOver.Set(took.Seconds())
	write := p.log.Debug
	if took > time.Second {
		write = p.log.Info
	}
	write("took over as publisher", zap.Int64("rows", l.total), zap.Int("endpoints", len(p.view.Endpoints)),
		zap.Int("accounts_with_webhooks", len(p.view.Webhooks)), zap.Int("accounts_with_parent", len(p.view.Parents)), zap.Duration("duration", took))
}

// routesSQL has the columns of [routesRead.take].
const routesSQL = `
	SELECT account, coalesce(url, ''), CASE WHEN own_secret THEN secret ELSE '' END, id, revision, ` + seal.StrictSQL + `, ` + seal.StrictURLSQL + ` FROM walhook.endpoint
	WHERE webhook = 'account' AND state <> 'cleared' AND ended_at IS NULL`

// loadRoutes reads the accounts' own endpoints. A row that cannot be read is set
// aside: its account is taken for one without an endpoint.
func (p *Publisher) loadRoutes(ctx context.Context) error {
	r := &routesRead{store: p.store}
	err := p.store.scan(ctx, p.loading, tableScan{table: "endpoint", id: "id", sql: routesSQL, take: r.take, mark: r.mark,
		alone: func(id string, cause error) error {
			p.store.setAside(ctx, loopAccounts, id, endpointID(id), asideUnreadable, cause)
			return nil
		}})
	if err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	p.view.Endpoints = make(map[string]*route.Endpoint, len(r.endpoints))
	for _, e := range r.endpoints {
		p.view.Endpoints[e.Account] = e
	}
	for _, id := range r.well {
		p.store.wellAgain(ctx, loopAccounts, strconv.FormatInt(id, 10))
	}
	for _, id := range r.damaged {
		p.store.setAside(ctx, loopAccounts, strconv.FormatInt(id, 10), id, asideSecret, &badItem{asideSecret, reasonSecret})
	}
	return nil
}

// routesRead is what was read of the accounts' own endpoints.
type routesRead struct {
	store         *Store
	endpoints     []*route.Endpoint
	well, damaged []int64

	// The memory of take.
	dest      []any
	texts     [3]string // to say what is wrong
	id        int64
	revision  int64
	strict    bool
	strictURL bool
	text      []byte
}

func (r *routesRead) mark() func() {
	n, well, damaged := len(r.endpoints), len(r.well), len(r.damaged)
	return func() { r.endpoints, r.well, r.damaged = r.endpoints[:n], r.well[:well], r.damaged[:damaged] }
}

func (r *routesRead) take(rows pgx.Rows) error {
	raw, store := rows.RawValues(), r.store
	if r.dest == nil {
		r.dest = []any{nil, nil, nil, &r.id, &r.revision, &r.strict, &r.strictURL}
	}
	r.text = r.text[:0]
	for i := range r.texts {
		if r.dest[i] = nil; raw[i] == nil {
			r.dest[i] = &r.texts[i]
		}
		r.text = append(r.text, raw[i]...)
	}
	if err := rows.Scan(r.dest...); err != nil {
		return err
	}
	text := string(r.text) // one allocation for all three
	account, url := len(raw[0]), len(raw[0])+len(raw[1])
	one := &route.Endpoint{Account: text[:account], ID: r.id, Revision: r.revision, URL: text[account:url], Secret: text[url:]}
	of := seal.Holder{Account: one.Account, Webhook: AccountWebhook}
	opened, urlErr := store.secrets.OpenURL(one.URL, of, r.strictURL)
	if urlErr == nil {
		one.URL = opened // otherwise whatever comes is another
	}
	var err error
	if one.Secret, err = store.secrets.Open(one.Secret, of, r.strict && one.Secret != ""); err != nil {
		one.Secret = "" // as one that was not seen yet
	}
	switch {
	case err != nil || urlErr != nil:
		r.damaged = append(r.damaged, one.ID)
	case store.aside.any() && store.aside.reason(loopAccounts, strconv.FormatInt(one.ID, 10)) != "":
		r.well = append(r.well, one.ID)
	}
	r.endpoints = append(r.endpoints, one)
	return nil
}

const parentsSQL = `SELECT id, parent, ended_in::text FROM walhook.account WHERE true`

// loadParents reads the parent of each account that has one, and of each that was
// deleted by the transaction in which the position lies. An account whose row cannot be
// read is set aside: it is taken for one without a parent account.
func (p *Publisher) loadParents(ctx context.Context, position schemas.Position) error {
	p.view.Deleted = route.DeletedAccounts{Commit: position.Commit, Parents: map[string]string{}}
	r := &parentsRead{publisher: p, commit: position.Commit.String(), known: map[string]string{}}
	err := p.store.scan(ctx, p.loading, tableScan{table: "account", id: "id", sql: parentsSQL, take: r.take, mark: r.mark,
		alone: func(id string, cause error) error {
			p.store.setAside(ctx, loopAccounts, asideTree+id, 0, asideUnreadable, cause)
			return nil
		}})
	if err != nil {
		return fmt.Errorf("read the tree of accounts: %w", err)
	}
	p.view.Parents = make(map[string]string, len(r.present))
	for _, a := range r.present {
		p.view.Parents[a.id] = a.parent
	}
	for _, a := range r.deleted {
		p.view.Deleted.Parents[a.id] = a.parent
	}
	for _, id := range r.well {
		p.store.wellAgain(ctx, loopAccounts, asideTree+id)
	}
	return nil
}

// parentsRead is what was read of the tree of accounts.
type parentsRead struct {
	publisher        *Publisher
	commit           string // of the transaction in which the position lies
	present, deleted []accountParent
	well             []string
	known            map[string]string // parent accounts: many accounts have the same
}

type accountParent struct{ id, parent string }

func (r *parentsRead) mark() func() {
	present, deleted, well := len(r.present), len(r.deleted), len(r.well)
	return func() { r.present, r.deleted, r.well = r.present[:present], r.deleted[:deleted], r.well[:well] }
}

func (r *parentsRead) take(rows pgx.Rows) error {
	p := r.publisher
	raw := rows.RawValues()
	if raw[0] == nil || raw[1] == nil {
		return &badItem{asideUnreadable, "the account, or its parent account, is NULL"}
	}
	parent, known := r.known[string(raw[1])]
	if !known {
		parent = p.accountText(raw[1])
		r.known[parent] = parent
	}
	a := accountParent{p.accountText(raw[0]), parent}
	if route.ParentOf(a.id, a.parent) == "" {
		return &badItem{asideUnreadable, "the parent account is none that there can be"}
	}
	switch {
	case raw[2] == nil:
		r.present = append(r.present, a)
	case string(raw[2]) == r.commit:
		r.deleted = append(r.deleted, a)
	}
	if p.store.aside.any() && p.store.aside.reason(loopAccounts, inASCII(asideTree+a.id)) != "" {
		r.well = append(r.well, a.id)
	}
	return nil
}
