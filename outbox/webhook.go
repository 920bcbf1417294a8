package outbox

import (
	"time"

	"walhook/outbox/route"
)

// AccountWebhook is the webhook id of an account's own endpoint, whose URL is
// the account table's.
const AccountWebhook = "account"

// HookRecords and HookAll are the hooks that are no event's name: the record
// feed, and every event.
const (
	HookRecords = route.HookRecords
	HookAll     = route.HookAll
)

// Webhook is what an account set of one of its endpoints (docs/CONTRACT.md §7).
type Webhook struct {
	// ID is unique within the account: [AccountWebhook], or 32 hexadecimal
	// digits.
	ID       string
	Account  string
	Name     string
	URL      string
	unopened string // the stored URL, where it cannot be decrypted
	Enabled  bool   // nobody disabled it; it may have no URL that can be used all the same
	HTTPVerb string // post, get or put
	// Hook is [HookRecords], [HookAll] or the name of an event.
	Hook string
	// ObjectType and ObjectAction are the filters type and action of the hooks
	// object and notifications; "" is any.
	ObjectType, ObjectAction string
	// Schemas and Types are filters of the record feed; empty is all.
	Schemas, Types []string
	// Target is number, extension, ringGroup or queue when the webhook is bound
	// to the one named TargetID; "" is none.
	Target, TargetID string
	Format           string // envelope, json or form; "" is what the event's hook says
	// Retries is 0 to 10; nil is the whole schedule.
	Retries   *int
	RateLimit float64 // attempts a second; 0 is no limit
	// CustomData is a JSON object that is merged into each event last; empty
	// for none.
	CustomData          []byte
	IncludeSubaccounts  bool
	IncludeInternalLegs bool
	Delivery            string // realtime or daily
	// DailyAt is the time of day, since midnight, at which a daily webhook's
	// day ends in DailyZone, an IANA zone.
	DailyAt   time.Duration
	DailyZone string

	// By is who creates or edits it.
	By Caller

	// Ask is whether it is to be enabled, where an edit says so; nil where not.
	Ask *bool

	// What follows is not the account's to set.

	Endpoint      int64 // its row: what events, attempts and lanes are of
	Revision      int64 // every change raises it
	State         EndpointState
	DisableReason string // why nothing is sent to it; "" while it is active
	DisabledBy    string // walhook, operator or account; "" for nobody
	setBy         string // the account above whose token set the URL
	// HeldSince is since when nothing can be sent, because of what is stored of it
	// or, with HeldReason, by a fault of walhook's own side; zero for neither.
	HeldSince  time.Time
	HeldReason string
	Deleted    bool // it is kept for who looks back
	CreatedAt  time.Time
	ChangedAt  time.Time
}
