package route

import (
	"maps"
	"slices"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// View is what routing knows of the outbox: what is stored, and caches of it.
// Its owner fills the caches before it routes ([View.Need]), and changes the rest
// by [View.Apply] alone, once what a plan says is committed. The zero View routes
// nothing; [NewView] makes one.
type View struct {
	Catalog *catalog.Catalog
	// MaxEventBytes bounds a body; a larger one becomes a dead letter.
	MaxEventBytes int
	// StoredURL is a URL as the outbox stores it; nil for as it is.
	StoredURL func(string) string

	NextID int64 // of the next event

	Endpoints map[string]*Endpoint   // by account: its own endpoint
	Webhooks  map[string][]*Endpoint // by account: its other ones
	// WebhooksVersion is that of the webhooks as they are known;
	// [UnknownVersion] where they have to be read again.
	WebhooksVersion int64
	wanted          map[string]bool          // the hooks that any webhook asks for
	derives         map[*catalog.Schema]bool // whose rules make events that any of them asks for
	daily           []*Endpoint              // those of them with daily delivery
	nextEnd         time.Time                // of the next of their days to end; zero for none

	Parents map[string]string // by account: its parent account
	Deleted DeletedAccounts

	Owners *Cache[RecordKey, Ownership]
	// Unknown are the schemas some of whose records' owners are not known, and
	// unknownAll those of which no record's owner is.
	Unknown    map[string]bool
	unknownAll map[string]bool
	Columns    *Cache[string, []string]

	tables map[*schemas.Relation]*catalog.Plan // nil where the catalog names no table
}

// UnknownVersion is no version of the webhooks.
const UnknownVersion = -1

// NewView is the view of an empty outbox.
func NewView(cat *catalog.Catalog) *View {
	return &View{
		Catalog:    cat,
		NextID:     1,
		Endpoints:  map[string]*Endpoint{},
		Webhooks:   map[string][]*Endpoint{},
		wanted:     map[string]bool{},
		derives:    map[*catalog.Schema]bool{},
		Parents:    map[string]string{},
		Owners:     NewOwnerCache(),
		Unknown:    map[string]bool{},
		unknownAll: map[string]bool{},
		Columns:    NewColumnCache(),
		tables:     map[*schemas.Relation]*catalog.Plan{},
	}
}

// Endpoint is where an account's events go, as far as routing asks.
type Endpoint struct {
	Account  string
	ID       int64 // 0 until it is inserted
	Revision int64
	URL      string // of the account's own endpoint, as it is stored
	Secret   string // the one in the account's column; "" where walhook made it, or it was not seen yet

	Subscription *Subscription // of a webhook; nil for the account's own endpoint
	Day          *OpenDay      // of a webhook with daily delivery; nil for the others
}

// Subscription is what makes a webhook of the API want an event: its filters.
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
}

// Target is the number, extension, ring group or queue that an event is about.
type Target struct{ Kind, ID string }

// DeletedAccounts are the accounts that one transaction of the source deleted.
// Their parent accounts are notified of the rest of that transaction.
type DeletedAccounts struct {
	Commit  schemas.LSN
	Parents map[string]string // by account
}

// SetWebhooks takes up the webhooks of all accounts, with the days that those
// with daily delivery count for.
func (v *View) SetWebhooks(version int64, webhooks map[string][]*Endpoint) {
	v.WebhooksVersion, v.Webhooks, v.daily = version, webhooks, nil
	v.wanted, v.derives = map[string]bool{}, map[*catalog.Schema]bool{}
	for _, list := range webhooks {
		for _, w := range list {
			v.wanted[w.Subscription.Hook] = true
			if w.Day != nil {
				v.daily = append(v.daily, w)
			}
		}
	}
	for _, d := range v.Catalog.Derivations() {
		if v.wants(d.Hook, d.Groups...) {
			v.derives[v.Catalog.Schema(d.Schema)] = true
		}
	}
	v.nextEnd = v.firstEnd(nil)
}

// wants says whether any webhook, of whatever account, asks for a hook.
func (v *View) wants(hook string, groups ...string) bool {
	return v.wanted[hook] || v.wanted[HookAll] || slices.ContainsFunc(groups, func(group string) bool { return v.wanted[group] })
}

// Webhook finds one endpoint of an account, its own included; nil when there is
// none such.
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

// Apply makes the view what it is once the plan is committed.
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
			webhook.Subscription.Ended = true
		}
	}
	if s.webhooksStale {
		v.WebhooksVersion = UnknownVersion
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

// Derives says whether any webhook asks for an event that a schema's rules make.
func (v *View) Derives(schema *catalog.Schema) bool { return v.derives[schema] }
