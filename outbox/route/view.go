package route

import (
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
	Webhooks  map[string][]*Endpoint // by account: its other ones
	// WebhooksVersion is the version of Webhooks; [UnknownVersion] when the publisher
	// must read them again.
	WebhooksVersion int64
	wanted          map[string]bool          // the hooks that any webhook subscribes to
	derives         map[*catalog.Schema]bool // schemas with rules whose events any webhook wants
	daily           []*Endpoint              // webhooks with daily delivery
	nextEnd         time.Time                // when the next of their days ends; zero for none

	Parents map[string]string // by account: its parent account
	Deleted DeletedAccounts

	Owners *Cache[RecordKey, Ownership]
	// Unknown are the schemas with records whose owner is unknown; unknownAll are those
	// in which every record's owner is unknown.
	Unknown    map[string]bool
	unknownAll map[string]bool
	Columns    *Cache[string, []string]

	tables map[*schemas.Relation]*catalog.Plan // nil where the catalog does not name the table
}

// UnknownVersion is not a version of the webhooks: they must be read again.
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

// Endpoint is where an account's events go, with the fields that routing needs.
type Endpoint struct {
	Account  string
	ID       int64 // 0 until it is inserted
	Revision int64
	URL      string // of the account's own endpoint, as it is stored
	Secret   string // the one in the account's column; "" if walhook made it or has not read the column yet

	Subscription *Subscription // of a webhook; nil for the account's own endpoint
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

// wants reports whether a webhook of any account subscribes to a hook.
func (v *View) wants(hook string, groups ...string) bool {
	return v.wanted[hook] || v.wanted[HookAll] || slices.ContainsFunc(groups, func(group string) bool { return v.wanted[group] })
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

// Derives reports whether any webhook subscribes to an event of a schema's rules.
func (v *View) Derives(schema *catalog.Schema) bool { return v.derives[schema] }
