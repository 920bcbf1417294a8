package route

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// View is what routing knows of the outbox: stored state and caches. Its owner fills
// the caches before it routes ([View.OwnersNeeded], [View.ColumnsNeeded]). It changes
// the rest only with [View.Apply], after the COMMIT of a plan. [NewView] makes a View;
// the zero View cannot be used.
type View struct {
	Catalog *catalog.Catalog
	// MaxEventBytes bounds a body; a larger one becomes a dead letter.
	MaxEventBytes int
	// StoredURL converts a URL into the form in which the outbox stores it; nil leaves
	// it unchanged.
	StoredURL func(string) string

	NextID int64 // of the next event

	Endpoints map[string]*Endpoint   // by account: its own endpoint
	Webhooks  map[string][]*Endpoint // by account: its other ones, in the order of their ids; by [NoAccount] the feeds
	// WebhooksVersion is the version of Webhooks; [UnknownVersion] when the publisher
	// must read some of them again ([View.StaleWebhooks]).
	WebhooksVersion int64
	followed        int64                    // the version that Webhooks was last brought to
	stale           map[string]bool          // accounts whose webhooks a plan changed in the outbox
	wanted          map[string]int           // by hook: how many webhooks subscribe to it
	derives         map[*catalog.Schema]bool // schemas with rules whose events any webhook wants
	daily           map[int64]*Endpoint      // by id: webhooks with daily delivery
	nextEnd         time.Time                // no day ends before it; zero when no day is open

	Parents map[string]string // by account: its parent account
	Deleted DeletedAccounts

	Owners *Cache[RecordKey, Ownership]
	// Unknown are the schemas with records whose owner is unknown, or was another one by the
	// former catalog; unknownAll are those
	// in which every record's owner is unknown.
	Unknown    map[string]bool
	unknownAll map[string]bool
	Columns    *Cache[string, []string]

	tables map[*schemas.Relation]*catalog.Plan // nil where the catalog does not name the table
}

// NoAccount is in place of the account of an operator's feed, which belongs to none and
// gets every account's events.
const NoAccount = ""

// UnknownVersion is not a version of the webhooks: some of them must be read again.
const UnknownVersion = -1

// NewView is the view of an empty outbox.
func NewView(cat *catalog.Catalog) *View {
	return &View{
		Catalog:    cat,
		NextID:     1,
		Endpoints:  map[string]*Endpoint{},
		Webhooks:   map[string][]*Endpoint{},
		followed:   UnknownVersion,
		stale:      map[string]bool{},
		wanted:     map[string]int{},
		derives:    map[*catalog.Schema]bool{},
		daily:      map[int64]*Endpoint{},
		Parents:    map[string]string{},
		Owners:     NewOwnerCache(),
		Unknown:    map[string]bool{},
		unknownAll: map[string]bool{},
		Columns:    NewColumnCache(),
		tables:     map[*schemas.Relation]*catalog.Plan{},
	}
}

// Endpoint is where an account's events go, with the fields that routing needs.
type Endpoint struct {
	Account  string
	ID       int64 // 0 until it is inserted
	Revision int64
	URL      string // of the account's own endpoint, as it is stored
	Secret   string // the one in the account's column; "" if walhook made it or has not read the column yet

	Subscription *Subscription // of a webhook; nil for the account's own endpoint. Webhooks may share one
	Day          *OpenDay      // of a webhook with daily delivery; otherwise nil
}

// Subscription holds the filters of a webhook that the API made.
type Subscription struct {
	Hook                     string
	ObjectType, ObjectAction string // "" is any
	Schemas, Types           []string
	Target                   Target // zero for none
	Subaccounts              bool
	InternalLegs             bool
	Daily                    bool
	DailyAt                  time.Duration
	DailyZone                string
	Ended                    bool // its account is gone
	Feed                     bool // an operator's: HookAll has the record feed, too
}

// Target is the number, extension, ring group or queue that an event is about.
type Target struct{ Kind, ID string }

// DeletedAccounts are the accounts that one transaction of the source deleted. Their
// parent accounts still get the events of the rest of that transaction.
type DeletedAccounts struct {
	Commit  schemas.LSN
	Parents map[string]string // by account
}

// SetWebhooks replaces the webhooks of all accounts, with the open days of those with
// daily delivery.
func (v *View) SetWebhooks(version int64, webhooks map[string][]*Endpoint) {
	v.Webhooks, v.nextEnd = webhooks, time.Time{}
	v.wanted, v.daily = map[string]int{}, map[int64]*Endpoint{}
	for _, list := range webhooks {
		slices.SortFunc(list, byID)
		for _, w := range list {
			v.subscribe(w)
		}
	}
	v.setDerives()
	v.follow(version)
}

// WebhookID names a webhook: the account and the id of its endpoint.
type WebhookID struct {
	Account string
	ID      int64
}

// ChangeWebhooks brings the webhooks to a version: each of changed, with its open day,
// replaces the one of its id, and those that are gone leave. It takes time for these
// alone.
func (v *View) ChangeWebhooks(version int64, changed []*Endpoint, gone []WebhookID) {
	hooks := len(v.wanted)
	for _, w := range changed {
		v.removeWebhook(WebhookID{w.Account, w.ID})
		list := v.Webhooks[w.Account]
		at, _ := slices.BinarySearchFunc(list, w, byID)
		v.Webhooks[w.Account] = slices.Insert(list, at, w)
		v.subscribe(w)
	}
	for _, id := range gone {
		v.removeWebhook(id)
	}
	if len(changed) > 0 || len(v.wanted) != hooks {
		v.setDerives()
	}
	v.follow(version)
}

func byID(a, b *Endpoint) int { return cmp.Compare(a.ID, b.ID) }

func (v *View) removeWebhook(id WebhookID) {
	list := v.Webhooks[id.Account]
	at, found := slices.BinarySearchFunc(list, id.ID, func(w *Endpoint, id int64) int { return cmp.Compare(w.ID, id) })
	if !found {
		return
	}
	v.unsubscribe(list[at])
	if list = slices.Delete(list, at, at+1); len(list) == 0 {
		delete(v.Webhooks, id.Account)
	} else {
		v.Webhooks[id.Account] = list
	}
}

// subscribe counts a webhook's hook and open day.
func (v *View) subscribe(w *Endpoint) {
	v.wanted[w.Subscription.Hook]++
	if w.Day == nil {
		return
	}
	v.daily[w.ID] = w
	if v.nextEnd.IsZero() || w.Day.ends.Before(v.nextEnd) {
		v.nextEnd = w.Day.ends
	}
}

// unsubscribe undoes subscribe. nextEnd may then be earlier than any end: when it is
// reached, the view looks through the days for the next one.
func (v *View) unsubscribe(w *Endpoint) {
	hook := w.Subscription.Hook
	if v.wanted[hook]--; v.wanted[hook] == 0 {
		delete(v.wanted, hook)
	}
	if delete(v.daily, w.ID); len(v.daily) == 0 {
		v.nextEnd = time.Time{}
	}
}

func (v *View) setDerives() {
	clear(v.derives)
	for _, d := range v.Catalog.Derivations() {
		if v.wants(d.Hook, d.Groups...) {
			v.derives[v.Catalog.Schema(d.Schema)] = true
		}
	}
}

func (v *View) follow(version int64) {
	v.WebhooksVersion, v.followed = version, version
	clear(v.stale)
}

// StaleWebhooks returns what the publisher must read to bring the webhooks up to date:
// those that changed after the version since, and those of the accounts. It must read
// all of them when since is [UnknownVersion].
func (v *View) StaleWebhooks() (since int64, accounts []string) {
	return v.followed, slices.Collect(maps.Keys(v.stale))
}

// ForgetWebhooks says that all webhooks must be read again.
func (v *View) ForgetWebhooks() { v.WebhooksVersion, v.followed = UnknownVersion, UnknownVersion }

// wants reports whether a webhook of any account subscribes to a hook.
func (v *View) wants(hook string, groups ...string) bool {
	return v.wanted[hook] > 0 || v.wanted[HookAll] > 0 || slices.ContainsFunc(groups, func(group string) bool { return v.wanted[group] > 0 })
}

// Webhook finds an endpoint of an account by id, the account's own included; nil when
// there is none.
func (v *View) Webhook(account string, endpoint int64) *Endpoint {
	if own := v.Endpoints[account]; own != nil && own.ID == endpoint {
		return own
	}
	for _, webhook := range v.Webhooks[account] {
		if webhook.ID == endpoint {
			return webhook
		}
	}
	return nil
}

// AccountOfWebhook looks through all webhooks for one of which only the id is known.
func (v *View) AccountOfWebhook(id int64) (account string, known bool) {
	for account, list := range v.Webhooks {
		if slices.ContainsFunc(list, func(w *Endpoint) bool { return w.ID == id }) {
			return account, true
		}
	}
	return "", false
}

// Apply changes the view as the plan says. The publisher calls it after the COMMIT.
func (v *View) Apply(p *Plan) {
	s := &p.state
	v.NextID = s.nextID
	for account, to := range s.endpoints {
		if to == nil {
			delete(v.Endpoints, account)
		} else {
			v.Endpoints[account] = to
		}
	}
	for account := range s.endedWebhooks {
		for _, webhook := range v.Webhooks[account] {
			ended := *webhook.Subscription // which others share
			ended.Ended = true
			webhook.Subscription = &ended
		}
	}
	for account := range s.staleWebhooks {
		v.stale[account], v.WebhooksVersion = true, UnknownVersion
	}
	for w, day := range s.days {
		w.Day = day
	}
	v.nextEnd = s.nextEnd
	if s.noParents {
		clear(v.Parents)
	}
	for account, parent := range s.parents {
		if parent == "" {
			delete(v.Parents, account)
		} else {
			v.Parents[account] = parent
		}
	}
	v.Deleted = s.deleted
	for schema := range s.noOwners {
		v.forgetOwners(schema)
	}
	for k, o := range s.owners {
		if o.Dropped {
			v.Owners.drop(k)
		} else {
			v.Owners.Set(k, o.Ownership)
		}
	}
	for _, k := range s.recent {
		v.Owners.keep(k)
	}
	for schema := range s.unknown {
		v.Unknown[schema] = true
	}
	for schema, unknown := range s.unknownAll {
		if unknown {
			v.unknownAll[schema] = true
		} else {
			delete(v.unknownAll, schema)
		}
	}
	if s.noColumns {
		v.Columns = NewColumnCache()
	}
	for account, columns := range s.columns {
		v.Columns.Set(account, columns)
	}
	maps.Copy(v.tables, s.tables)
}

func (v *View) forgetOwners(schema string) {
	for _, generation := range []map[RecordKey]Ownership{v.Owners.young, v.Owners.old} {
		maps.DeleteFunc(generation, func(k RecordKey, _ Ownership) bool { return k.Schema == schema })
	}
}

// Derives reports whether any webhook subscribes to an event of a schema's rules.
func (v *View) Derives(schema *catalog.Schema) bool { return v.derives[schema] }
