package route

import (
	"cmp"
	"maps"
	"slices"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// endpoint returns an account's own endpoint; nil for none.
func (r *router) endpoint(account string) *Endpoint {
	if to, changed := r.plan.state.endpoints[account]; changed {
		return to
	}
	return r.view.Endpoints[account]
}

// eachEndpoint calls each for every account's own endpoint.
func (r *router) eachEndpoint(each func(account string, to *Endpoint)) {
	for account, to := range maps.Clone(r.plan.state.endpoints) {
		if to != nil {
			each(account, to)
		}
	}
	for account, to := range r.view.Endpoints {
		if _, changed := r.plan.state.endpoints[account]; !changed {
			each(account, to)
		}
	}
}

// applyAccount applies a row of the account table. From here on, events go to its URL:
// the event of the row itself and those of the rest of the transaction.
func (r *router) applyAccount(c *schemas.Change, table *catalog.Plan, row schemas.Tuple) {
	if table.Account == nil {
		return
	}
	account, ok := table.AccountOf(row)
	switch {
	case !ok:
		r.noteOnce("account id", "changes of the account table carry no comparable id: URLs are not followed, each change is unrouted",
			field("table", table.Relation.Table().String()))
		r.refuseAccountRow(c, table)
		r.holdByURL(c, table)
		r.plan.LosesAccounts = true
		return
	case account.ID == NoAccount:
		r.refuseAccount(c, table, SkipAccountEmpty) // feeds are stored under it
		return
	case len(account.ID) > schemas.MaxAccountBytes:
		r.refuseAccount(c, table, SkipAccountID)
		return
	}
	r.followParent(c, table, account)
	was, _ := table.AccountOf(c.Old)
	begins := c.Kind == schemas.Insert || c.Old != nil && was.ID != account.ID
	r.setColumns(account.ID, account.Columns, begins)
	if begins {
		r.begin(account.ID)
		put(&r.plan.KnownAccounts, account.ID, true)
	}
	before := r.endpoint(account.ID)
	r.followURL(c, table, account)
	to := cmp.Or(r.endpoint(account.ID), before)
	switch {
	case to == nil || !account.HasSecret:
	case account.Secret != "" && account.Secret != to.Secret:
		r.setSecret(to, SecretOwn, account.Secret)
	case account.Secret == "" && (to.Secret != "" || before == nil): // an earlier feed of the account may have had one
		r.setSecret(to, SecretUnset, "")
	}
}

// followParent applies the parent account. If the row changed and the parent column
// is missing, the parent is unknown: the former parent must not get events of an
// account that may have another parent by now.
func (r *router) followParent(c *schemas.Change, table *catalog.Plan, account catalog.AccountRow) {
	switch {
	case account.HasParent:
		r.setParent(account.ID, account.Parent)
	case table.Account.LacksParent && r.parent(account.ID) != "" && !table.UnnamedSame(c):
		r.setParent(account.ID, "")
		r.refuseAccountRow(c, table)
	}
}

// followURL applies the account's URL. If the row changed and the URL column is
// missing, the URL is unknown: the account's events are held until it is known.
func (r *router) followURL(c *schemas.Change, table *catalog.Plan, account catalog.AccountRow) {
	switch {
	case account.HasURL:
		r.applyURL(account)
	case table.Account.LacksURL && !table.UnnamedSame(c) && r.holdURL(account.ID, URLUnknown):
		r.refuseAccountRow(c, table)
	}
}

// holdURL holds the events of an account whose URL is no longer known. It returns
// false when the account has no URL.
func (r *router) holdURL(account string, why URLChange) bool {
	to := r.endpoint(account)
	if to == nil || to.URL == "" {
		return false
	}
	r.setURL(to, why, "") // so that the next known URL is a change
	r.note(Warn, "account's URL is unknown, holding its events", field("endpoint", to.ID))
	return true
}

// holdUnstored holds the accounts of a row of the account table that the outbox cannot
// store, if the row ends them or changes their URL: the stored URL is then out of date.
func (r *router) holdUnstored(c *schemas.Change, table *catalog.Plan) {
	if table == nil || table.Account == nil {
		return
	}
	after, stays := table.AccountOf(c.New)
	for _, row := range []schemas.Tuple{c.Old, c.New} {
		if row == nil {
			continue
		}
		account, ok := table.AccountOf(row)
		to := r.endpoint(account.ID)
		if !ok || to == nil || stays && after.ID == account.ID && after.HasURL && r.view.storedURL(after.URL) == to.URL {
			continue
		}
		r.holdURL(account.ID, URLUnstored)
	}
}

// holdByURL handles a row without an id whose URL changed: it holds every account
// with the old URL.
func (r *router) holdByURL(c *schemas.Change, table *catalog.Plan) {
	before, _ := table.AccountOf(c.Old)
	after, _ := table.AccountOf(c.New)
	if c.Old == nil || !before.HasURL || !after.HasURL || before.URL == after.URL {
		return
	}
	r.eachEndpoint(func(account string, to *Endpoint) {
		if to.URL == before.URL {
			r.holdURL(account, URLUnknown)
		}
	})
}

func (r *router) applyURL(account catalog.AccountRow) {
	account.URL = r.view.storedURL(account.URL)
	to := r.endpoint(account.ID)
	switch {
	case account.URL == "" && to != nil:
		w := r.write(to)
		w.Change, w.URL, w.Ended = URLCleared, "", false
		w.FeedFrom = r.plan.state.nextID
		put(&r.plan.state.endpoints, account.ID, nil)
	case account.URL == "":
		// It has no URL and had none before.
	case to == nil:
		to = &Endpoint{Account: account.ID}
		if w := r.writeOf[account.ID]; w != nil {
			to = w.Endpoint // earlier in this batch it began or its URL was cleared
		}
		put(&r.plan.state.endpoints, account.ID, to)
		r.setURL(to, URLSet, account.URL)
	case to.URL != account.URL:
		r.setURL(to, URLSet, account.URL)
	}
}

func (v *View) storedURL(url string) string {
	if v.StoredURL == nil {
		return url
	}
	return v.StoredURL(url)
}

func (r *router) setURL(to *Endpoint, change URLChange, url string) {
	w := r.write(to)
	w.Endpoint.URL = url
	w.Change, w.URL, w.Ended = change, url, false
}

func (r *router) setSecret(to *Endpoint, secret SecretWrite, text string) {
	w := r.write(to)
	w.Endpoint.Secret = text
	w.Secret, w.SecretText = secret, text
}

// write returns the plan's change of an account's endpoint, with a copy of its own.
func (r *router) write(to *Endpoint) *EndpointWrite {
	w := r.writeOf[to.Account]
	if w == nil {
		own := *to
		w = &EndpointWrite{Endpoint: &own}
		if r.endpoint(to.Account) == to {
			put(&r.plan.state.endpoints, to.Account, &own)
		}
		put(&r.copies, to, &own)
		put(&r.writeOf, to.Account, w)
		r.plan.Endpoints = append(r.plan.Endpoints, w)
	}
	return w
}

// begin starts an account with a new endpoint. An account of the same id that ended
// in this batch keeps its write and its events.
func (r *router) begin(account string) {
	if w := r.writeOf[account]; r.endpoint(account) != nil || w != nil && !w.Ended {
		return
	}
	delete(r.writeOf, account)
	r.write(&Endpoint{Account: account}).Begins = true
	if len(r.view.Webhooks[account]) > 0 {
		put(&r.plan.state.staleWebhooks, account, true) // the transaction deletes those of the ended account
	}
}

// endAccount ends an account. walhook still delivers what was appended for it;
// nothing follows.
func (r *router) endAccount(id string) {
	if id == NoAccount {
		return
	}
	r.plan.EndedAccounts = append(r.plan.EndedAccounts, id)
	put(&r.plan.KnownAccounts, id, false)
	r.markDeleted(id)
	r.dropColumns(id)
	r.setParent(id, "")
	r.endWebhooks(id)
	to := r.endpoint(id)
	if to == nil {
		to = &Endpoint{Account: id} // an account without a URL may have a row, too
	}
	put(&r.plan.state.endpoints, id, nil)
	r.write(to).Ended = true
}

// endWebhooks ends an account's webhooks: they get no further events. The transaction
// also ends webhooks that the view has not seen yet.
func (r *router) endWebhooks(account string) {
	if len(r.view.Webhooks[account]) > 0 {
		put(&r.plan.state.endedWebhooks, account, true)
		put(&r.plan.state.staleWebhooks, account, true)
	}
}

// endAllAccounts ends every account with a TRUNCATE of the account table.
func (r *router) endAllAccounts() {
	r.eachEndpoint(func(account string, _ *Endpoint) { r.endAccount(account) })
	for account := range r.view.Webhooks {
		r.endAccount(account)
	}
	for account, w := range r.writeOf {
		if !w.Ended {
			r.endAccount(account)
		}
	}
	p := r.plan
	p.AllEnded, p.NoAccounts = true, true
	p.state.noParents, p.state.noColumns = true, true
	// No account has a parent any more.
	p.state.deleted.Parents = nil
	for _, m := range []map[string]string{p.DeletedAccounts, p.Parents, p.state.parents} {
		clear(m)
	}
	clear(p.Columns)
	clear(p.state.columns)
	clear(p.DroppedColumns)
	clear(p.KnownAccounts)
}

// parent returns the parent of an account; "" for none.
func (r *router) parent(account string) string {
	if parent, changed := r.plan.state.parents[account]; changed || r.plan.state.noParents {
		return parent
	}
	return r.view.Parents[account]
}

// setParent sets the parent of an account; "" for none.
func (r *router) setParent(account, parent string) {
	parent = ParentOf(account, parent)
	before := r.parent(account)
	if before == parent {
		return
	}
	r.plan.ParentsMoved = r.plan.ParentsMoved || before != ""
	put(&r.plan.state.parents, account, parent)
	put(&r.plan.Parents, account, parent)
}

// ParentOf returns the parent account as the outbox stores it: "" if an account names
// itself or an account whose id is too long.
func ParentOf(account, parent string) string {
	if parent == account || len(parent) > schemas.MaxAccountBytes {
		return ""
	}
	return parent
}

// markDeleted notes the parent of an account that is being deleted.
func (r *router) markDeleted(account string) {
	if parent := r.parent(account); parent != "" {
		put(&r.plan.state.deleted.Parents, account, parent)
		put(&r.plan.DeletedAccounts, account, parent)
	}
}

// accountColumns returns the columns of an account, nil when they are not known.
func (r *router) accountColumns(account string) []string {
	if columns, changed := r.plan.state.columns[account]; changed || r.plan.state.noColumns {
		return columns
	}
	columns, _, _ := r.view.Columns.look(account)
	return columns
}

// setColumns applies the columns of an account; begins says that the account is new. A
// column that the source did not send keeps its value.
func (r *router) setColumns(account string, columns []string, begins bool) {
	if len(columns) == 0 {
		return
	}
	known := r.accountColumns(account)
	columns = slices.Clone(columns)
	for i := range columns {
		if columns[i] == "" && i < len(known) {
			columns[i] = known[i]
		}
	}
	if slices.Equal(columns, known) && !begins {
		return
	}
	put(&r.plan.state.columns, account, columns)
	put(&r.plan.Columns, account, columns)
	delete(r.plan.DroppedColumns, account)
}

// dropColumns notes that an account was deleted. Its columns stay stored until
// retention ends.
func (r *router) dropColumns(account string) {
	if len(r.view.Catalog.AccountColumns()) > 0 {
		put(&r.plan.DroppedColumns, account, true)
	}
}
