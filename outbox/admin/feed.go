package admin

import (
	"context"

	"walhook/outbox"
)

// Feed reads a stretch of a webhook's events in the order of the event log.
func (a *Admin) Feed(ctx context.Context, q outbox.FeedQuery) (outbox.FeedPage, error) {
	return a.store.Feed(ctx, q)
}
