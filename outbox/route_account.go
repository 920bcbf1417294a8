package outbox

import (
	"cmp"

	"go.uber.org/zap"

	"walhook/schemas"
)

// endpointWrite is what a batch makes of one account's endpoint. Only the last
// state counts: what waits for an old URL follows to the new one.
type endpointWrite struct {
	route *route

	urlSet   bool // url, state, reason and feedFrom count
	url      string
	state    EndpointState
	reason   string
	feedFrom int64 // events below are expired; 0 keeps what is there

	secret     secretWrite
	columnText string // the secret, where the column has one
	ended      bool
	begins     bool // an account begins: what an ended one of its id had is not its own
}

// secretWrite is what becomes of an endpoint's secret. The one before signs
// too, for a while.
type secretWrite string

const (
	secretKept  secretWrite = ""     // the one that is there; made where there is none
	secretOwn   secretWrite = "own"  // the one in the account's column
	secretUnset secretWrite = "none" // the column is empty: one that walhook makes, where it was the column's
)

// The reasons of endpoints that are not sent to, as people see them.
const (
	reasonCleared  = "the account has no web hook URL"
	reasonEnded    = "the account was deleted"
	reasonUnknown  = "the account changed while its table had no column of the web hook URL: its URL is not known"
	reasonUnstored = "a change of the account cannot be stored in the outbox: its URL is not known; correct the row in the source"
)

// applyAccount follows a row of the account table: from here on, its own event
// and the rest of its transaction included, events go to the URL that it has.
func (r *router) applyAccount(c *schemas.Change, plan *schemas.Plan, row schemas.Tuple) {
	if plan.Account == nil {
		return
	}
	account, ok := plan.AccountOf(row)
	switch {
	case !ok:
		r.p.warnOnce("account id", "changes of the account table carry no id, or none that tells which account it is: nobody's URL is followed, each is listed as unrouted",
			zap.String("table", plan.Relation.Table().String()))
		r.refuseAccountRow(c, plan)
		r.holdByURL(c, plan)
		r.unsure = true
		return
	case len(account.ID) > schemas.MaxAccountBytes:
		r.refuseAccount(c, plan)
		return
	}
	r.followParent(c, plan, account)
	was, _ := plan.AccountOf(c.Old)
	begins := c.Kind == schemas.Insert || c.Old != nil && was.ID != account.ID
	r.setColumns(account.ID, account.Columns, begins)
	if begins {
		r.begin(account.ID)
		r.known[account.ID] = true
	}
	before := r.p.routes[account.ID]
	r.followURL(c, plan, account)
	to := cmp.Or(r.p.routes[account.ID], before)
	switch {
	case to == nil || !account.HasSecret:
	case account.Secret != "" && account.Secret != to.secret:
		r.applySecret(to, secretOwn, account.Secret)
	case account.Secret == "" && (to.secret != "" || before == nil): // a feed that starts anew may have had one
		r.applySecret(to, secretUnset, "")
	}
}

// followParent follows the account above. Where its column is missing and the
// row changed, nobody is known to be above: who was must not go on hearing of
// what may be another's by now.
func (r *router) followParent(c *schemas.Change, plan *schemas.Plan, account schemas.AccountRow) {
	switch {
	case account.HasParent:
		r.setParent(account.ID, account.Parent)
	case plan.Account.LacksParent && r.p.parents[account.ID] != "" && !plan.UnnamedSame(c):
		r.setParent(account.ID, "")
		r.refuseAccountRow(c, plan)
	}
}

// followURL follows the account's URL. Where its column is missing and the row
// changed, the URL is not known: what is the account's is held until it is.
func (r *router) followURL(c *schemas.Change, plan *schemas.Plan, account schemas.AccountRow) {
	switch {
	case account.HasURL:
		r.applyURL(account)
	case plan.Account.LacksURL && !plan.UnnamedSame(c) && r.holdURL(account.ID, reasonUnknown):
		r.refuseAccountRow(c, plan)
	}
}

// holdURL holds what is an account's, whose URL is not known any more. It is
// false where nothing is sent to it anyway.
func (r *router) holdURL(account, reason string) bool {
	to := r.p.routes[account]
	if to == nil || to.url == "" {
		return false
	}
	to.url = "" // whatever comes is another
	r.write(to).setURL("", EndpointUnusable, reason)
	r.p.log.Warn("account's URL is not known any more, its events are held", zap.Int64("endpoint", to.endpoint))
	return true
}

// holdUnstored holds the accounts of a row of the account table of which nothing
// can be stored, where it ends them or gives them another URL: the URL that is
// stored is theirs no more.
func (r *router) holdUnstored(c *schemas.Change, plan *schemas.Plan) {
	if plan == nil || plan.Account == nil {
		return
	}
	after, stays := plan.AccountOf(c.New)
	for _, row := range []schemas.Tuple{c.Old, c.New} {
		if row == nil {
			continue
		}
		account, ok := plan.AccountOf(row)
		to := r.p.routes[account.ID]
		if !ok || to == nil || stays && after.ID == account.ID && after.HasURL && r.p.store.encoding.url(after.URL) == to.url {
			continue
		}
		r.holdURL(account.ID, reasonUnstored)
	}
}

// holdByURL holds the accounts whose URL a row without an id had, where it has
// another now.
func (r *router) holdByURL(c *schemas.Change, plan *schemas.Plan) {
	before, _ := plan.AccountOf(c.Old)
	after, _ := plan.AccountOf(c.New)
	if c.Old == nil || !before.HasURL || !after.HasURL || before.URL == after.URL {
		return
	}
	for account, to := range r.p.routes {
		if to.url == before.URL {
			r.holdURL(account, reasonUnknown)
		}
	}
}

func (r *router) applyURL(account schemas.AccountRow) {
	account.URL = r.p.store.encoding.url(account.URL)
	to := r.p.routes[account.ID]
	switch {
	case account.URL == "" && to != nil:
		w := r.write(to)
		w.setURL("", EndpointCleared, reasonCleared)
		w.feedFrom = r.p.nextID
		delete(r.p.routes, account.ID)
	case account.URL == "":
		// No feed, and none before.
	case to == nil:
		to = &route{account: account.ID, url: account.URL}
		if w := r.writeOf[account.ID]; w != nil {
			to = w.route // begun or cleared earlier in this batch
		}
		r.p.routes[account.ID] = to
		r.setURL(to, account.URL)
	case to.url != account.URL:
		r.setURL(to, account.URL)
	}
}

func (r *router) applySecret(to *route, secret secretWrite, text string) {
	to.secret = text
	w := r.write(to)
	w.secret, w.columnText = secret, text
}

func (r *router) setURL(to *route, url string) {
	to.url = url
	state, reason := EndpointActive, URLFault(url)
	if reason != "" {
		state = EndpointUnusable
	}
	r.write(to).setURL(url, state, reason)
}

func (w *endpointWrite) setURL(url string, state EndpointState, reason string) {
	w.urlSet, w.ended = true, false
	w.url, w.state, w.reason = url, state, reason
}

// endAccount ends a feed with the account: what was appended is still
// delivered, nothing follows.
func (r *router) endAccount(id string) {
	r.ended = append(r.ended, id)
	r.known[id] = false
	r.depart(id)
	r.dropColumns(id)
	r.setParent(id, "")
	r.endWebhooks(id)
	to := r.p.routes[id]
	if to == nil {
		to = &route{account: id} // its URL may be cleared: the row is there
	}
	delete(r.p.routes, id)
	r.write(to).ended = true
}

// begin starts an account with an endpoint of its own. One that ended in this
// batch keeps its write and its events.
func (r *router) begin(account string) {
	if w := r.writeOf[account]; r.p.routes[account] != nil || w != nil && !w.ended {
		return
	}
	delete(r.writeOf, account)
	r.write(&route{account: account}).begins = true
	if len(r.p.webhooks[account]) > 0 {
		r.p.version = unknownVersion // those that ended are deleted
	}
}

// endWebhooks ends an account's webhooks with the account: they are told nothing
// more. Those that were made since they were read end in the database alone.
func (r *router) endWebhooks(account string) {
	for _, webhook := range r.p.webhooks[account] {
		webhook.subscription.ended = true
		r.p.version = unknownVersion
	}
}

// write is the batch's change of an account's endpoint.
func (r *router) write(to *route) *endpointWrite {
	w := r.writeOf[to.account]
	if w == nil {
		w = &endpointWrite{route: to}
		r.writeOf[to.account] = w
		r.endpoints = append(r.endpoints, w)
	}
	return w
}
