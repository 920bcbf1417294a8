package route

import (
	"crypto/sha256"
	"maps"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Plan says everything that one appending transaction writes, and what the view
// becomes once that is committed ([View.Apply]). It is a value: whoever made it,
// it is committed in the same way, and one that could not be committed leaves
// nothing behind.
type Plan struct {
	Events   []Event
	TooLarge []Event // become dead letters without a body

	Endpoints     []*EndpointWrite // each once, in the order in which they were met
	EndedAccounts []string         // their tokens end with them
	AllEnded      bool             // every account ended, those without an endpoint too
	KnownAccounts map[string]bool  // accounts that began, and with false those that ended
	LosesAccounts bool             // an account may have begun or ended whose id cannot be told

	Owners          map[RecordKey]OwnerWrite
	ForgottenOwners []string // schemas of whose records no owner is known any more

	Parents         map[string]string // by account: its parent account; "" for none
	DeletedAccounts map[string]string // parent accounts of those that the transaction deleted
	DeletedIn       schemas.LSN       // the commit of that transaction
	Columns         map[string][]string
	DroppedColumns  map[string]bool // accounts that were deleted
	NoAccounts      bool            // the account table was truncated: Parents and Columns are all there is

	Sums    map[SumKey]*Sum
	DayEnds []DayEnd

	Unrouted []Unrouted
	Changes  map[[2]string]int // schema and type: what is counted of changes
	Skipped  map[Reason]int    // what became no event
	Notes    []Note

	// Reached is where the source's WAL is stored up to; nil leaves it as it is.
	Reached *Reached
	// Inbox are the rows of the inbox that Events stand for.
	Inbox []int64

	state   state
	bodies  []byte // of events, one after the other
	scratch []byte
}

// NewPlan is a plan that changes nothing of the view.
func NewPlan(v *View) *Plan {
	return &Plan{state: v.state(), Changes: map[[2]string]int{}, Skipped: map[Reason]int{}}
}

// Reached is a position of the source, as [schemas.Batch] has it.
type Reached struct {
	Position   schemas.Position
	Xid        uint32
	Flush      schemas.LSN
	NoMessages bool
}

// NextID is the id of the first event after the plan's.
func (p *Plan) NextID() int64 { return p.state.nextID }

// Event is one event for one endpoint.
type Event struct {
	ID          int64
	To          *Endpoint // whose id and revision are those that the transaction learns
	Record      string    // events of one record are delivered in order
	WebhookID   string
	Schema      string
	Type        string
	CommittedAt time.Time
	Format      string // what the event's hook says; "" for the record feed
	Body        []byte
	Size        int // of the body, in bytes
}

// EndpointWrite is what a batch makes of one account's endpoint. Only the last
// state counts: what waits for an old URL follows to the new one.
type EndpointWrite struct {
	// Endpoint is the plan's own: the transaction that writes it sets its ID and
	// Revision, and the view takes it over.
	Endpoint *Endpoint

	Change   URLChange
	URL      string // with URLSet
	FeedFrom int64  // events below are expired; 0 keeps what is there

	Secret     SecretWrite
	SecretText string // the secret, where the column has one
	Ended      bool
	Begins     bool // an account begins: what an ended one of its id had is not its own
}

// URLChange is what becomes of an endpoint's URL.
type URLChange byte

// The changes of a URL.
const (
	URLKept     URLChange = iota
	URLSet                // it is EndpointWrite.URL
	URLCleared            // the account has none
	URLUnknown            // the account changed while its table had no column of the URL
	URLUnstored           // a change of the account cannot be stored
)

// SecretWrite is what becomes of an endpoint's secret. The one before signs
// too, for a while.
type SecretWrite string

// The changes of a secret.
const (
	SecretKept  SecretWrite = ""     // the one that is there; made where there is none
	SecretOwn   SecretWrite = "own"  // the one in the account's column
	SecretUnset SecretWrite = "none" // the column is empty: one that walhook makes, where it was the column's
)

// OwnerWrite is whose one record is now.
type OwnerWrite struct {
	Ownership
	// IsNew says that the record is not cached. Whose an inserted one was before
	// is not asked, so it may still be stored: with a key that is used again, of a
	// record that was deleted.
	IsNew bool
	// Dropped says that nothing is known of it any more.
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

// Sum is what is added to one body of one day.
type Sum struct {
	Hook, Type string
	Format     string
	Head, Tail []byte
	N          int64
}

// Unrouted is a change that reaches nobody although somebody may expect it.
type Unrouted struct {
	Position          schemas.Position
	Schema, Type, Key string
	Reason            Reason
	Unstorable        bool // Schema and Key may be what cannot be stored
}

// Note is a line for the logs, written once the plan is committed.
type Note struct {
	Level  Level
	Text   string
	Fields []Field
	Once   string // what is said once; "" for each time
}

// Level is how much a note matters.
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

// Reason says why a change became no event.
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
		SkipTableUnknown, SkipTruncate, SkipMessage, SkipOutsideTx, SkipResult, SkipTooLarge, SkipMalformed, SkipAccountID, SkipOldRow,
		SkipEvent, SkipEventSize, SkipHook, SkipReserved, SkipUnstorable}
}

// state is what a plan changes of the view. Routing reads it first, and the view
// where it says nothing. Maps are nil until they are needed.
type state struct {
	nextID int64

	endpoints     map[string]*Endpoint // by account; nil for none any more
	endedWebhooks map[string]bool      // by account
	webhooksStale bool
	days          map[*Endpoint]*OpenDay
	nextEnd       time.Time

	parents   map[string]string // "" for none
	noParents bool              // those of the view do not count
	deleted   DeletedAccounts

	owners     map[RecordKey]OwnerWrite
	noOwners   map[string]bool // schemas of which those of the view do not count
	recent     []RecordKey     // that were read from the older generation of the cache
	unknown    map[string]bool
	unknownAll map[string]bool
	columns    map[string][]string
	noColumns  bool // those of the view do not count

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

// after is the state that the next part of a transaction begins with, one of the
// same view.
func (s *state) after() state {
	next := *s
	next.endpoints, next.endedWebhooks, next.days = maps.Clone(s.endpoints), maps.Clone(s.endedWebhooks), maps.Clone(s.days)
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

// put sets a key of a map that is made when it is first needed.
func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// mostKept is as much memory for bodies as a plan hands on to the next, in bytes;
// a batch may need more.
const mostKept = 4 << 20

// reuse takes over the memory of a plan that is done with.
func (p *Plan) reuse(done *Plan) {
	if done == nil || cap(done.bodies)+cap(done.scratch) > mostKept {
		return
	}
	clear(done.Events)
	p.Events, p.bodies, p.scratch = done.Events[:0], done.bodies[:0], done.scratch[:0]
	done.Events, done.bodies, done.scratch = nil, nil, nil
}
