package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/address"
)

// A stream of NATS takes an event of two feeds for a duplicate, since both have the same
// webhook-id, and stores it once. What the outbox knows of it is here; which streams there
// are, only the servers know ('walhook doctor').

// Apart says that no event is for both of two feeds.
func (w *Webhook) Apart(other *Webhook) bool {
	if w.Hook == HookAll && other.Hook == HookAll {
		return false // events that are no records pass every filter
	}
	return disjoint(w.Schemas, other.Schemas) || disjoint(w.Types, other.Types)
}

// disjoint says that two filters have nothing in common. An empty one passes everything.
func disjoint(a, b []string) bool {
	return len(a) > 0 && len(b) > 0 && !slices.ContainsFunc(a, func(one string) bool { return slices.Contains(b, one) })
}

// checkStreamTx is [checkStream] with the feeds as they are once no other transaction
// changes webhooks: of two that would share a stream, the second one to come is refused.
func (a *Admin) checkStreamTx(ctx context.Context, tx pgx.Tx, before, w *Webhook) error {
	rows, err := tx.Query(ctx, feedsSQL)
	var others []Webhook
	if err == nil {
		others, err = collectEach(rows, a.scanWebhook, func(*Webhook, error) {}) // who lists feeds sets a damaged one aside
	}
	if err != nil {
		return fmt.Errorf("list the feeds: %w", err)
	}
	return checkStream(before, w, others)
}

// checkStream returns a [*FeedFault] where a feed publishes what another one publishes, on
// the same subjects of the same servers. before is the feed as it was; nil for a new one.
func checkStream(before, w *Webhook, others []Webhook) error {
	for i := range others {
		o := &others[i]
		if o.ID != w.ID && doubles(w, o) && (before == nil || !doubles(before, o)) {
			return &FeedFault{fmt.Sprintf("feed %s publishes the same events at the same servers under the same prefix, %s: their stream would store each event for only one of the two. "+
				"Choose another --prefix, and make a stream of its own for it ('walhook doctor' prints the command), or --schemas that feed %s does not get", o.Name, o.SubjectPrefix, o.Name)}
		}
	}
	return nil
}

// doubles says that every stream that takes an event of one feed takes it of the other.
func doubles(w, o *Webhook) bool {
	return address.IsServers(w.URL) && address.IsServers(o.URL) && w.SubjectPrefix == o.SubjectPrefix && address.ShareServers(w.URL, o.URL) && !w.Apart(o)
}

// StreamWarnings says which other feeds may be in one stream with a feed, as far as URLs
// and prefixes tell it.
func StreamWarnings(w *Webhook, others []OperatorFeed) (warnings []string) {
	for i := range others {
		o := &others[i].Webhook
		if o.ID == w.ID || !address.IsServers(w.URL) || !address.IsServers(o.URL) || w.Apart(o) {
			continue
		}
		same := address.ShareServers(w.URL, o.URL)
		switch within := prefixWithin(w.SubjectPrefix, o.SubjectPrefix) || prefixWithin(o.SubjectPrefix, w.SubjectPrefix); {
		case same && w.SubjectPrefix == o.SubjectPrefix:
			warnings = append(warnings, fmt.Sprintf("feeds %s and %s publish the same events under the same prefix: their stream stores each event for only one of the two; change the --prefix of one", w.Name, o.Name))
		case same && within:
			warnings = append(warnings, fmt.Sprintf("the prefixes of feeds %s (%s) and %s (%s) lie within each other: a stream of %s.> takes both, and stores each event for only one of the two; change the --prefix of one", w.Name, w.SubjectPrefix, o.Name, o.SubjectPrefix, shorter(w.SubjectPrefix, o.SubjectPrefix)))
		case within:
			warnings = append(warnings, fmt.Sprintf("feed %s has the prefix %s, too, or one within it: if its servers are of the same cluster, one stream may take both and store each event for only one of the two; 'walhook doctor' says so", o.Name, shorter(w.SubjectPrefix, o.SubjectPrefix)))
		}
	}
	return warnings
}

// prefixWithin says that every subject of a prefix is one of the other, too.
func prefixWithin(inner, outer string) bool { return strings.HasPrefix(inner+".", outer+".") }

func shorter(a, b string) string {
	if len(b) < len(a) {
		return b
	}
	return a
}
