package outbox

import (
	"errors"
	"strings"
	"time"

	"walhook/outbox/route"
)

// Ordering says which of an endpoint's events wait for each other.
type Ordering string

// The orderings.
const (
	OrderingNone   Ordering = "none"   // none: events of one record may overtake each other
	OrderingRecord Ordering = "record" // those of one record; the default
	OrderingStrict Ordering = "strict" // all: one in flight, and a failing one holds back every later one
)

// NoAccount is the account of an operator's feed: it belongs to none.
const NoAccount = route.NoAccount

// Endpoint is where an account's events go, or as a feed those of every account.
type Endpoint struct {
	ID      int64
	Account string
	// Revision rises with every change of what the account set. An answer
	// counts only against the revision that it was given to.
	Revision int64
	URL      string
	State    EndpointState
	Reason   string // why it is not active, for people
	// Unreadable says that it is held because of what is stored of it. It may be
	// well again in the same revision.
	Unreadable bool
	fault      *badItem
	// Secrets are whsec_ secrets, the newest first; more than one while a
	// rotation overlaps. Never logged.
	Secrets []string
	// Headers are those that each request has besides walhook's own, by name. Never logged.
	Headers []Header
	// FeedFrom is the first event of the present feed: older ones are
	// expired, not sent.
	FeedFrom int64
	// ExpireBefore is where retention has come to: older events are dead
	// letters or about to be.
	ExpireBefore int64
	Ordering     Ordering // "" is OrderingRecord
	// RetryAsked counts how often somebody asked for a retry now.
	RetryAsked int64
	// Feed says that it is an operator's feed, and SubjectPrefix what its subjects begin
	// with where it is one over NATS.
	Feed          bool
	SubjectPrefix string
	// Pull says that its receiver reads its feed: nothing is sent to it. It stays so.
	Pull bool
	// Settings are nil where the account set none: then each event is a POST of
	// its body as the event log has it, retried by the whole schedule.
	Settings *EndpointSettings
}

// Batch is how many events one request carries at most, as an array; 0 is one, and no
// array.
func (e *Endpoint) Batch() int {
	if e.Settings == nil {
		return 0
	}
	return e.Settings.Batch
}

// EndpointRevision is an endpoint, and where its changes have come to.
type EndpointRevision struct {
	ID, Revision int64
	// Confirm says that somebody waits until the endpoint's sender knows.
	Confirm bool
	// RetryAsked is the endpoint's: it rises without a new revision.
	RetryAsked int64
}

// EndpointSettings are how an account wants its events to be sent.
type EndpointSettings struct {
	HTTPVerb string // post, get or put
	Format   string // envelope, json, form or cloudevents; "" is what the event says
	// CustomData is a JSON object without white space between its tokens, which
	// is merged into each event last; nil for none.
	CustomData []byte
	Retries    *int    // 0 to 10; nil is the whole schedule
	RateLimit  float64 // attempts a second; 0 is no limit
	// Batch is how many events one request carries at most, as an array; 0 is one, and
	// no array.
	Batch int
}

// MaxBatch is the most events of one request.
const MaxBatch = 100

// SendFrom is the first event that may be sent: see FeedFrom and ExpireBefore.
func (e Endpoint) SendFrom() int64 { return max(e.FeedFrom, e.ExpireBefore) }

// Event is one line of the event log for one endpoint.
type Event struct {
	ID       int64
	Endpoint int64
	// Revision of the endpoint that was in force when the event was appended.
	// A sender that knows an older one reads the endpoint again first.
	Revision  int64
	Record    string // events with the same Record reach the endpoint in order
	WebhookID string
	Schema    string
	Type      string
	// CommittedAt is when the source committed the change.
	CommittedAt time.Time
	AppendedAt  time.Time // to the event log
	ReadAt      time.Time // from the event log, by this process's clock
	// Format is how the event is sent where the endpoint does not say: json or
	// form; "" for those of the record feed, whose Body is the envelope.
	Format string
	Body   []byte // not to be changed: other events may share it
	// Account is whose event a feed gets; "" where that is the endpoint's account.
	Account string
	bodyOf  int64 // the event that carries the body; 0 for this one
	// Attempts counts those already made that failed; zero for a fresh event.
	Attempts int
	// Batch is the batch of retry that the event is in; 0 for none. Its events are sent
	// again together.
	Batch int64
}

// Rendered is the request of an event in the form that its endpoint asks for.
type Rendered struct {
	ID          string // the webhook-id
	EventIDs    string // the webhook-ids of the events in the body, for a batch; "" for one event
	Method      string
	ContentType string // "" without a body
	UserAgent   string
	Query       string // that a GET adds to the URL's own
	Body        []byte // not to be changed
	// Headers are the names of the endpoint's own headers.
	Headers []string
	// Timestamp and Signature are those of one attempt; "" without one.
	Timestamp, Signature string
}

// Disposition is what becomes of an event after an attempt, or without one.
type Disposition byte

// The dispositions.
const (
	Delivered Disposition = iota + 1 // acknowledged
	Retry                            // tried again at Settlement.RetryAt; its record's later events wait
	Dead                             // given up: a dead letter, listed, can be sent again
	Parked                           // not tried: an earlier event of its record is in retry
)

// Settlement is the fate of one event, to be made durable.
type Settlement struct {
	Event       Event // Body is not needed
	Disposition Disposition
	// Attempt is nil when none was made (Parked).
	Attempt *Attempt
	// RetryAt is for Retry, by this process's clock. It is stored by the
	// outbox's, which alone decides what is due.
	RetryAt time.Time
	// FromRetry says that the event was read from the retry table and not
	// from the event log.
	FromRetry bool
	// Batch is for Retry: the events with the same one are sent again together. It is
	// the id of the first; 0 is by itself.
	Batch int64
	// Behind is for Retry, and needs a Batch: an earlier event of the record is in retry,
	// so that this one is due with it, or once that one has left. RetryAt does not count.
	Behind bool
	// Disable, when not empty, disables the endpoint with this reason,
	// provided that its revision is still Attempt.Revision.
	Disable string
}

// Attempt is one request, made or at least begun.
type Attempt struct {
	At       time.Time // when it began
	Number   int       // 1 for the first
	Revision int64     // of the endpoint it went to
	Duration time.Duration
	Status   int    // HTTP status, 0 for none
	Outcome  string // delivered, retry, pause, disable, dead
	Reason   string // 2xx, timeout_header, unreachable, …; as the account may see it
	// Detail is for people, bounded, without secrets. Without a status it is the
	// operator's alone: it names addresses of this machine, its name servers and
	// the networks that it sees.
	Detail string
	// Batch is the webhook-id of a request that carried several events, or the one as
	// an array; "" where it was the event's own.
	Batch string
}

// ForAccount is the attempt as its account may see it. Without an answer over
// HTTP, neither what happened on the way nor how long that took is shown: both
// tell of hosts and ports that the account cannot reach itself.
func (a Attempt) ForAccount() Attempt {
	if a.Status == 0 {
		a.Duration, a.Detail = 0, ""
	}
	if before, _, ok := strings.Cut(a.Detail, ", and an endless header: "); ok {
		a.Detail = before + ", and an endless header" // an error that earlier versions stored
	}
	return a
}

// RecordState is how a record stands that a settlement touched and that has,
// or had, rows in retry.
type RecordState struct {
	Endpoint int64
	Record   string
	// Blocked is false when nothing of the record is left in retry: its next
	// events are sent straight from the event log again.
	Blocked bool
	// NextAt is when the record's oldest event in retry is due.
	NextAt time.Time
}

// LaneState is what is kept of a lane between owners. A lane with nothing to
// remember has no row.
type LaneState struct {
	Endpoint int64
	// Revision of the endpoint that the breaker and the pause are about. They
	// do not bind a newer one.
	Revision int64
	// Behind says that the lane stands still at Cursor while its shard's
	// tail moves on. Every event up to Cursor is delivered, in retry or dead.
	Behind bool
	Cursor int64
	// Open is the breaker: no attempt before OpenUntil. Opens counts how
	// often in a row it opened, which sets how long the next time lasts.
	Open      bool
	OpenUntil time.Time
	Opens     int
	// PausedUntil is set by Retry-After; zero for not paused.
	PausedUntil time.Time
	// FailingSince is the first failure after the last success; zero when
	// the last attempt succeeded.
	FailingSince time.Time
	// Stage is the last warning that was given because the endpoint only
	// fails: 1, 2 or 3 before it is disabled; 0 for none.
	Stage      int
	LastReason string // as metrics name it: the operator's alone
	// HeldSince is the first attempt that failed by a fault of walhook's own side,
	// after the last one that did not, and HeldReason the latest such fault, as
	// metrics name it; zero for none.
	HeldSince  time.Time
	HeldReason string
	// RetrySeen is the endpoint's RetryAsked that the lane has acted on.
	RetrySeen int64
}

// Shard is a part of the endpoints, owned by one sender at a time.
type Shard struct {
	ID int
	// Tail: every event of the shard up to here is settled, or belongs to a
	// lane that is Behind.
	Tail int64
}

// Handover is what a new owner of shards starts from.
type Handover struct {
	Shards []Shard
	// Horizon is the newest event at the time of taking over. Up to here the
	// log may hold events that the previous owner settled: reads with
	// Unsettled leave them out.
	Horizon int64
	Lanes   []LaneState
	// Blocked lists the records with rows in retry.
	Blocked []RecordState

	bad []badRow // what could not be read of it
}

// TailQuery asks for the event log's events in order of id.
type TailQuery struct {
	After  int64 // exclusive
	Upto   int64 // inclusive; 0 for no bound
	Shards []int
	// Endpoint, when not 0, asks for one lane's own range instead of Shards.
	Endpoint int64
	// Unsettled leaves out what an earlier owner settled; needed up to
	// Handover.Horizon.
	Unsettled bool
	Limit     int // most rows looked at
	MaxBytes  int // stop after this many bytes of bodies; at least one event is returned
}

// Stretch is a part of the event log as it was read.
type Stretch struct {
	Events []Event
	// Upto is how far the event log was read: nothing that was asked for lies
	// between TailQuery.After and here except Events.
	Upto int64
	// More says that a bound ended the reading, and not the event log or the range.
	More bool
}

// RetryQuery asks for an endpoint's rows of retry.
type RetryQuery struct {
	Endpoint int64
	// Now is the instant at which the rows are due, by this process's clock;
	// what is compared is the outbox's.
	Now      time.Time
	Limit    int     // most rows
	MaxBytes int     // stop after this many bytes of bodies; at least one event is returned
	Exclude  []int64 // events to leave out: those already in flight
	// Batches asks for whole batches: the rows of one follow each other in order of id.
	// Of a batch the rows are left out that wait for an event outside it. Without
	// Batches only rows are read that are due themselves.
	Batches bool
}

// Retries are rows of retry that are due, the oldest due time first.
type Retries struct {
	Events []Event
	// Next is when the first row is due that is not yet, by this process's
	// clock; zero for none.
	Next time.Time
	// More says that a bound ended the reading.
	More bool
}

// ErrLeaseLost says that this sender no longer owns its shards: another took
// over, and nothing that it writes is accepted. It must stop sending and join
// anew.
var ErrLeaseLost = errors.New("lease lost: another sender may own these shards")

// ErrUncertain says that nobody knows whether this sender owns shards that it
// was about to gain: it has to leave and join again.
var ErrUncertain = errors.New("unknown whether shards were gained")
