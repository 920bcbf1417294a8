package outbox

import (
	"context"
	"math"
	"time"

	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/outbox/seal"
	"walhook/schemas/catalog"
)

// AccountWebhook is the webhook id of an account's own endpoint, whose URL is the
// account table's.
const AccountWebhook = seal.AccountWebhook

// Access is what package admin works with: connections that keep neither publisher
// nor sender waiting, and the few things that only the store knows. It is as good as
// the store that it is of.
type Access struct {
	Pool    *pgsession.Pool
	Secrets seal.Sealer
	Log     *zap.Logger
	store   *Store
}

// Access opens the store to package admin.
func (s *Store) Access() Access {
	return Access{Pool: s.pool, Secrets: s.secrets, Log: s.log, store: s}
}

// URL is a URL as the outbox stores it: the same one, in characters that its encoding has.
func (a Access) URL(text string) string { return a.store.encoding.url(text) }

// JSON is JSON as the outbox stores it: the same value.
func (a Access) JSON(text string) string { return a.store.encoding.json(text) }

// CatalogInForce returns the catalog by which changes are routed; nil where none is stored.
func (a Access) CatalogInForce(ctx context.Context) (*catalog.Catalog, error) {
	return a.store.CatalogInForce(ctx)
}

// NotifyInbox notifies the publisher that the inbox holds something.
func (a Access) NotifyInbox() { a.store.signalInbox() }

// NotifyRequest notifies the publisher that a request was stored.
func (a Access) NotifyRequest() { a.store.signalRequest() }

// NotifyEndpoints notifies the senders that endpoints have changed.
func (a Access) NotifyEndpoints() { a.store.signalEndpoints() }

// Endpoints reads the named endpoints as a sender has them, secrets included. Those
// that are not there are left out.
func (a Access) Endpoints(ctx context.Context, ids []int64) ([]Endpoint, error) {
	return a.store.endpoints(ctx, ids)
}

// HeldReason is why an endpoint is held because of what is stored of it, and since
// when.
type HeldReason struct {
	Text  string
	Since time.Time
}

// HeldReasons are those of the named endpoints that are held.
func (a Access) HeldReasons(ctx context.Context, ids []int64) (map[int64]HeldReason, error) {
	return a.store.heldReasons(ctx, ids)
}

// CountEndpoints counts the endpoints by state; a state without any is zero.
func (a Access) CountEndpoints(ctx context.Context) (map[EndpointState]int, error) {
	return a.store.countEndpoints(ctx)
}

// Backlog is what [Store.Measure] measures: how many events wait for active
// endpoints, and how long ago the oldest of them was appended.
func (a Access) Backlog(ctx context.Context) (events float64, oldest time.Duration, err error) {
	b, err := a.store.measure(ctx)
	return b.events, time.Duration(b.oldest * float64(time.Second)), err
}

// AppendedAfter counts the events whose id is larger than after.
func (a Access) AppendedAfter(ctx context.Context, after int64) (float64, error) {
	used, err := a.store.idsInUse(ctx)
	return used.between(after, math.MaxInt64), err
}

// SetAsideRow sets a row of a list aside: it is shown as far as it can be read.
// endpoint is 0 where there is none.
func (a Access) SetAsideRow(ctx context.Context, list, item string, endpoint int64, cause error) {
	a.store.setAside(ctx, loopLists, list+" "+item, endpoint, asideUnreadable, cause)
}

// TokenRead notes how reading a token went, which hash names: one whose row is
// damaged is set aside until it can be read, and counts as none.
func (a Access) TokenRead(ctx context.Context, hash string, err error) (damaged bool) {
	switch item := asideToken + hash; {
	case err == nil:
		a.store.wellAgain(ctx, loopAccounts, item)
	case isReadFault(err):
		a.store.setAside(ctx, loopAccounts, item, 0, asideUnreadable, err)
		return true
	}
	return false
}

// Feed reads a stretch of an endpoint's events, as [Store.Feed] does.
func (a Access) Feed(ctx context.Context, q FeedQuery) (FeedPage, error) { return a.store.Feed(ctx, q) }

// Revisions are those of endpoints, as [Store.Revisions] reads them.
func (a Access) Revisions(ctx context.Context, endpoints []int64) (map[int64]int64, error) {
	return a.store.Revisions(ctx, endpoints)
}
