package outbox

import (
	"slices"
	"time"

	"walhook/schemas"
)

// subscription is what makes a webhook of the API want an event: its filters.
type subscription struct {
	hook                     string
	objectType, objectAction string // "" is any
	schemas, types           []string
	target                   target // zero for none
	subaccounts              bool
	internalLegs             bool
	daily                    bool
	dailyAt                  time.Duration
	dailyZone                string
	ended                    bool // its account is gone
}

// audience is every endpoint that is told of an occurrence, each once: the
// account's own, its webhooks, and those webhooks of the accounts above, at any
// height, that follow their sub-accounts. It is valid until the next call.
func (r *router) audience(account string, o *occurrence) []*route {
	to := r.heard[:0]
	if o.hook == HookRecords {
		if own := r.p.routes[account]; own != nil {
			to = append(to, own)
		}
	}
	if len(r.p.webhooks) > 0 {
		to = r.subscribed(to, account, o)
	}
	r.heard = to
	return to
}

// maxTreeHeight bounds the way up a tree of accounts.
const maxTreeHeight = 1000

// subscribed goes up the tree from an account. In a loop, which the account
// table may hold, it stops where it has been.
func (r *router) subscribed(to []*route, account string, o *occurrence) []*route {
	r.path = r.path[:0]
	for at := account; at != "" && len(r.path) < maxTreeHeight && !slices.Contains(r.path, at); at = r.above(at) {
		for _, webhook := range r.p.webhooks[at] {
			if (at == account || webhook.subscription.subaccounts) && webhook.subscription.wants(o) {
				to = append(to, webhook)
			}
		}
		r.path = append(r.path, at)
	}
	return to
}

// wants says whether an occurrence passes a webhook's filters.
func (s *subscription) wants(o *occurrence) bool {
	if s.ended || o.internal && !s.internalLegs {
		return false
	}
	if s.target != (target{}) && !slices.Contains(o.targets, s.target) {
		return false
	}
	if o.hook == HookRecords {
		return s.hook == HookRecords && passes(s.schemas, o.schema) && passes(s.types, o.typ)
	}
	return (s.hook == o.hook || s.hook == HookAll || slices.Contains(o.groups, s.hook)) &&
		agrees(s.objectType, o.objectType) && agrees(s.objectAction, o.action)
}

func passes(filter []string, value string) bool {
	return len(filter) == 0 || slices.Contains(filter, value)
}

// agrees says whether a filter lets a value pass. "all" is any, as no filter is.
func agrees(filter, value string) bool {
	return filter == "" || filter == HookAll || value == "" || filter == value
}

// above is the account above another; "" for none. The accounts above one that
// was deleted still hear of the rest of the transaction that deleted it.
func (r *router) above(account string) string {
	if parent, known := r.p.parents[account]; known {
		return parent
	}
	return r.p.departed.above[account]
}

// departed are the accounts that a transaction deleted, while it lasts.
type departed struct {
	commit schemas.LSN
	above  map[string]string
}

// enter begins a change. With another transaction, the accounts that the last
// one deleted are gone for good.
func (r *router) enter(c *schemas.Change) {
	if gone := &r.p.departed; gone.commit != c.Position.Commit {
		gone.commit = c.Position.Commit
		clear(gone.above)
		clear(r.departed)
	}
	r.parts, r.afterwards = 0, 0
}

// depart notes who is above an account that is being deleted.
func (r *router) depart(account string) {
	if parent := r.p.parents[account]; parent != "" {
		r.p.departed.above[account] = parent
		r.departed[account] = parent
	}
}
