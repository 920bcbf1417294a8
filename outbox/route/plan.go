package route

import (
	"crypto/sha256"
	"maps"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Plan holds everything that one appending transaction writes, and the state of the
// view after its COMMIT ([View.Apply]). It is a value: the publisher commits every
// plan in the same way, and a plan that is not committed leaves no trace.
type Plan struct {
	Events   []Event
	TooLarge []Event // become dead letters without a body

	Endpoints     []*EndpointWrite // each once, in the order of their first change
	EndedAccounts []string         // the transaction deletes their tokens
	AllEnded      bool             // every account ended, also those without an endpoint
	KnownAccounts map[string]bool  // true for an account that began, false for one that ended
	LosesAccounts bool             // an account with an unknown id may have begun or ended

	Owners          map[RecordKey]OwnerWrite
	ForgottenOwners []string // schemas whose records' owners are all unknown now
	// IncompleteLedgers are schemas of which the outbox lacks records from now on.
	IncompleteLedgers []string

	Parents         map[string]string // by account: its parent account; "" for none
	ParentsMoved    bool              // an account left its parent: others may not be above it any more
	DeletedAccounts map[string]string // by account that the transaction deleted: its parent account
	DeletedIn       schemas.LSN       // the commit of that transaction
	Columns         map[string][]string
	DroppedColumns  map[string]bool // accounts that were deleted
	NoAccounts      bool            // the account table was truncated: only Parents and Columns of the plan remain

	Sums    map[SumKey]*Sum
	DayEnds []DayEnd

	Unrouted []Unrouted
	Changes  map[[2]string]int // by schema and type: changes to count
	Skipped  map[Reason]int    // changes that made no event, to count
	Notes    []Note

	// Reached is the position of the source that the transaction stores; nil keeps the
	// stored one.
	Reached *Reached
	// AppendedAt is when the transaction was made, which sets it.
	AppendedAt time.Time
	// Inbox holds the ids of the inbox rows from which Events were made.
	Inbox []int64
	// Missed are the places in Gap of what was missed and made Events, of which Sent, by
	// type, have a recipient.
	Gap    int64
	Missed []int64
	Sent   map[string]int64
	// MissedRows are the same for rows of the tables of results and events.
	MissedRows []int64
	// Taken are the rows of those tables that the source has since the plan.
	Taken map[catalog.RowTable]*TakenRows
	// Resync is the progress of the resync that made Events; nil for none.
	Resync *ResyncStep

	state   state
	bodies  []byte // of events, one after the other
	scratch []byte
}

// NewPlan returns a plan that changes nothing.
func NewPlan(v *View) *Plan {
	return &Plan{state: v.state(), Changes: map[[2]string]int{}, Skipped: map[Reason]int{}}
}

// Reached is a position of the source, with the fields of [schemas.Batch].
type Reached struct {
	Position    schemas.Position
	Xid         uint32
	CommittedAt time.Time
	Flush       schemas.LSN
	NoMessages  bool
}

// NextID is the id of the first event after the plan's.
func (p *Plan) NextID() int64 { return p.state.nextID }

// Event is one event for one endpoint.
type Event struct {
	ID          int64
	To          *Endpoint // the transaction sets its id and revision
	Record      string    // events of one record are delivered in order
	WebhookID   string
	Schema      string
	Type        string
	CommittedAt time.Time
	Format      string // the format of the event's hook; "" for the record feed
	Body        []byte
	Size        int // of the body, in bytes
	// Account is whose event a feed gets; "" for any other endpoint.
	Account string

	// Partial says that the body lacks fields which the source did not send, because the
	// update did not touch them.
	Partial bool
}

// EndpointWrite is the change that a batch makes to one account's own endpoint. Only
// its last state counts: events that wait for an old URL go to the new one.
type EndpointWrite struct {
	// Endpoint is the plan's own copy. The transaction that writes it sets its ID and
	// Revision, and [View.Apply] puts it into the view.
	Endpoint *Endpoint

	Change   URLChange
	URL      string // for URLSet
	FeedFrom int64  // events with lower ids expire; 0 keeps the stored value

	Secret     SecretWrite
	SecretText string // for SecretOwn
	Ended      bool
	Begins     bool // an account begins: it gets nothing of an ended account with the same id
}

// URLChange says how an endpoint's URL changes.
type URLChange byte

// The changes of a URL.
const (
	URLKept     URLChange = iota
	URLSet                // EndpointWrite.URL is the new URL
	URLCleared            // the account has no URL
	URLUnknown            // the account changed while its table had no URL column
	URLUnstored           // the outbox cannot store a change of the account
)

// SecretWrite says how an endpoint's secret changes. The previous secret signs too,
// for a while.
type SecretWrite string

// The changes of a secret.
const (
	SecretKept  SecretWrite = ""     // keep the secret; make one if there is none
	SecretOwn   SecretWrite = "own"  // the secret in the account's column
	SecretUnset SecretWrite = "none" // the column is empty: make a secret to replace the column's
)

// OwnerWrite is the new owner of one record.
type OwnerWrite struct {
	Ownership
	// IsNew says that the record is not cached. For an insert the publisher does not
	// read the former owner, so a row may exist: of a deleted record whose key is used
	// again.
	IsNew bool
	// Dropped says that the owner is no longer known.
	Dropped bool
	// Stored says that an earlier part of the transaction has written it.
	Stored bool
}

// SumKey is one body of one day.
type SumKey struct {
	Endpoint int64
	Period   Date
	Account  string
	Group    [sha256.Size]byte
}

// Sum is the number that a plan adds to one body of one day.
type Sum struct {
	Hook, Type string
	Format     string
	Head, Tail []byte
	N          int64
}

// Unrouted is a change that reaches nobody, although an account may expect it.
type Unrouted struct {
	Position          schemas.Position
	Schema, Type, Key string
	Reason            Reason
	Unstorable        bool // the server may refuse Schema and Key themselves
}

// Note is a log line that the publisher writes after the COMMIT.
type Note struct {
	Level  Level
	Text   string
	Fields []Field
	Once   string // a note with the same key is written once; "" for every time
}

// Level is the log level of a note.
type Level byte

// The levels.
const (
	Warn Level = iota
	Error
)

// Field is a named value of a note: no payload and no secret.
type Field struct {
	Key   string
	Value any
}

func field(key string, value any) Field { return Field{key, value} }

// Reason says why a change made no event.
type Reason = string

// The reasons of walhook_changes_skipped_total.
const (
	SkipNoTable      Reason = "not_in_catalog"
	SkipNoEndpoint   Reason = "no_endpoint"
	SkipNoOwner      Reason = "no_owner"
	SkipOwnerUnknown Reason = "owner_unknown"
	SkipOwnerColumn  Reason = "owner_column_missing"
	SkipAccountRow   Reason = "account_column_missing"
	SkipIncomparable Reason = "id_not_comparable"
	SkipNoKey        Reason = "no_key"
	SkipTableUnknown Reason = "table_unknown"
	SkipTruncate     Reason = "truncate"
	SkipMessage      Reason = "malformed_message"
	SkipOutsideTx    Reason = "non_transactional_message"
	SkipResult       Reason = "malformed_result"
	SkipTooLarge     Reason = "too_large"
	SkipMalformed    Reason = "malformed_value"
	SkipAccountID    Reason = "account_id_too_long"
	SkipAccountEmpty Reason = "account_id_empty"
	SkipOldRow       Reason = "old_row_not_kept"
	SkipEvent        Reason = "malformed_event"
	SkipEventSize    Reason = "event_too_large"
	SkipHook         Reason = "unknown_hook"
	SkipReserved     Reason = "reserved_name"
	SkipUnstorable   Reason = "unstorable"
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{SkipNoTable, SkipNoEndpoint, SkipNoOwner, SkipOwnerUnknown, SkipOwnerColumn, SkipAccountRow, SkipIncomparable, SkipNoKey,
		SkipTableUnknown, SkipTruncate, SkipMessage, SkipOutsideTx, SkipResult, SkipTooLarge, SkipMalformed, SkipAccountID, SkipAccountEmpty, SkipOldRow,
		SkipEvent, SkipEventSize, SkipHook, SkipReserved, SkipUnstorable}
}

// state is what a plan changes in the view. Routing reads it first and falls back to
// the view. Maps are nil until they are needed.
type state struct {
	nextID int64

	endpoints     map[string]*Endpoint // by account; nil once the account has none
	endedWebhooks map[string]bool      // by account
	staleWebhooks map[string]bool      // by account
	days          map[*Endpoint]*OpenDay
	nextEnd       time.Time

	parents   map[string]string // "" for none
	noParents bool              // ignore those of the view
	deleted   DeletedAccounts

	owners     map[RecordKey]OwnerWrite
	noOwners   map[string]bool // schemas whose owners in the view are ignored
	recent     []RecordKey     // read from the older generation of the cache
	unknown    map[string]bool
	unknownAll map[string]bool
	columns    map[string][]string
	noColumns  bool // ignore those of the view

	tables map[*schemas.Relation]*catalog.Plan
}

func (v *View) state() state {
	return state{
		nextID:  v.NextID,
		nextEnd: v.nextEnd,
		deleted: DeletedAccounts{v.Deleted.Commit, maps.Clone(v.Deleted.Parents)},
		owners:  map[RecordKey]OwnerWrite{},
	}
}

// after returns the state with which the next part of the same transaction begins.
func (s *state) after() state {
	next := *s
	next.endpoints, next.days = maps.Clone(s.endpoints), maps.Clone(s.days)
	next.endedWebhooks, next.staleWebhooks = maps.Clone(s.endedWebhooks), maps.Clone(s.staleWebhooks)
	next.parents, next.columns = maps.Clone(s.parents), maps.Clone(s.columns)
	next.deleted.Parents = maps.Clone(s.deleted.Parents)
	next.noOwners, next.unknown, next.unknownAll, next.tables = maps.Clone(s.noOwners), maps.Clone(s.unknown), maps.Clone(s.unknownAll), maps.Clone(s.tables)
	next.recent = s.recent[:len(s.recent):len(s.recent)]
	next.owners = make(map[RecordKey]OwnerWrite, len(s.owners))
	for k, o := range s.owners {
		o.IsNew, o.Stored = false, true
		next.owners[k] = o
	}
	return next
}

// put sets a key of a map and makes the map if it is nil.
func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// mostKept is the most memory for bodies, in bytes, that a plan passes on to the next;
// a batch may need more.
const mostKept = 4 << 20

// reuse takes over the memory of a plan that the caller no longer needs.
func (p *Plan) reuse(done *Plan) {
	if done == nil || cap(done.bodies)+cap(done.scratch) > mostKept {
		return
	}
	clear(done.Events)
	p.Events, p.bodies, p.scratch = done.Events[:0], done.bodies[:0], done.scratch[:0]
	done.Events, done.bodies, done.scratch = nil, nil, nil
}
