package deliver

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"walhook/outbox"
	"walhook/schemas"
)

// Destination is where events go: HTTP receivers, or another kind of system. The sender
// uses its results alone.
type Destination interface {
	// Deliver makes one attempt and returns its result. It sends the event at most
	// once, returns soon after ctx ends, and is safe for many goroutines. It changes
	// neither endpoint nor event.
	Deliver(ctx context.Context, endpoint outbox.Endpoint, event outbox.Event) Result
	// DeliverBatch is Deliver for several events at once, which have one result. It gets
	// them only for an endpoint with outbox.EndpointSettings.Batch.
	DeliverBatch(ctx context.Context, endpoint outbox.Endpoint, events []outbox.Event) Result
}

// Outcome says what follows from an attempt. It is also a label of metrics.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // acknowledged
	Retry     Outcome = "retry"     // retry the event later
	Pause     Outcome = "pause"     // retry the event later, and send no other before
	Disable   Outcome = "disable"   // disable the endpoint
	Dead      Outcome = "dead"      // no attempt can deliver the event, or the schedule is exhausted
	Held      Outcome = "held"      // a local error, which does not count against the endpoint
)

// Result is the result of an attempt.
type Result struct {
	Outcome Outcome
	// Reason is the cause, for operators: a label of metrics.
	Reason string
	// Shown is the cause as the account may see it. "" means Reason.
	Shown string
	// Detail is for display: bounded, without secrets and without the event. With a
	// Status the account may see it; without one it is for the operator only, since
	// it names addresses.
	Detail string
	// Status is the HTTP status; 0 for no answer, or for another protocol.
	Status int
	// After is how long the destination asks to get no event; zero for no such
	// request.
	After time.Duration
	// EndpointFault counts towards opening the endpoint's breaker: the endpoint as a
	// whole seems to fail, and not the event.
	EndpointFault bool
	// Unsent says that the event was not sent, so the endpoint does not fail because
	// of it.
	Unsent bool
	// Smaller says that a request of fewer events may succeed: a batch is split at once.
	Smaller bool
	// Lasting says that the cause of a Held attempt may last until an operator acts,
	// so metrics and status show it.
	Lasting bool
	// DisableReason is the reason for Disable, in words for the account.
	DisableReason string

	// Batch is the webhook-id of a batch; "" where the request has the event's own.
	Batch string

	At       time.Time     // when the attempt began
	Duration time.Duration // how long it took
}

// ForAccount is the cause as the account may see it.
func (r *Result) ForAccount() string { return cmp.Or(r.Shown, r.Reason) }

// longestAttempt bounds a duration that a jumping clock made.
const longestAttempt = 24 * time.Hour

// Attempt makes the stored form of the result, with the outcome that the schedule made
// of it. It alone makes an [outbox.Attempt], and each value fits its column, whatever
// the receiver sent.
func (r *Result) Attempt(number int, revision int64, outcome Outcome) outbox.Attempt {
	status := r.Status
	if status < 0 || status > 999 {
		status = 0
	}
	return outbox.Attempt{
		At: r.At, Number: min(max(number, 0), math.MaxInt32), Revision: revision,
		Duration: min(max(r.Duration, 0), longestAttempt),
		Status:   status, Outcome: string(outcome), Reason: r.ForAccount(), Detail: schemas.Storable(clip(r.Detail)),
		Batch: r.Batch,
	}
}

// MaxRetryAfter is the longest wait that a receiver may ask for.
const MaxRetryAfter = 24 * time.Hour

// classifyResponse is the whole table of HTTP. It is pure. status counts when class is
// "". retryAfter is the header's value, "" when absent. now is by the clock that a
// date in it counts by.
func classifyResponse(status int, class failure, retryAfter string, now time.Time) Result {
	if class != "" {
		return classifyFailure(class)
	}
	r := Result{Outcome: Retry, Status: status}
	switch {
	case status >= 200 && status < 300:
		r.Outcome, r.Reason = Delivered, "2xx"
		return r
	case status >= 300 && status < 400:
		r.Reason = "3xx"
		return r
	case status == http.StatusGone:
		r.Outcome, r.Reason, r.DisableReason = Disable, "410", "the endpoint answered 410 Gone"
		return r
	case status == http.StatusTooManyRequests:
		r.Outcome, r.Reason, r.EndpointFault = Pause, "429", true
	case status == http.StatusServiceUnavailable:
		r.Outcome, r.Reason, r.EndpointFault = Pause, "503", true
	case status == http.StatusRequestTimeout:
		r.Reason, r.EndpointFault = "408", true
	case status >= 400 && status < 500:
		r.Reason = "4xx"
		r.Smaller = status == http.StatusRequestEntityTooLarge || status == http.StatusRequestHeaderFieldsTooLarge
	case status >= 500 && status < 600:
		r.Reason, r.EndpointFault = "5xx", true
	default:
		r.Reason, r.EndpointFault = string(failStatus), true
		return r
	}
	r.After = parseRetryAfter(retryAfter, now)
	return r
}

// classifyFailure is the part of the table for an attempt without an answer.
func classifyFailure(class failure) Result {
	r := Result{Outcome: Retry, Reason: string(class), Shown: string(class.shown()), Unsent: class.unsent(), EndpointFault: true}
	switch {
	case class.own():
		r.Outcome, r.EndpointFault, r.Lasting = Held, false, class.lasts()
	case class == failTooLarge, class == failNATSTooLarge:
		r.Outcome, r.EndpointFault = Dead, false // the next attempt would be as large
	case class == failNATSPermission, class == failNATSNoSubject, class == failNATSSubjectFull:
		r.EndpointFault = false // it is about this event's subject, as 4xx is about its request
	case class == failRender:
		r.Smaller = true // for the other events of a batch
	}
	return r
}

// Results returns every outcome and reason of an attempt.
func Results() []Result {
	var all []Result
	for _, status := range []int{100, 200, 300, 400, 408, 410, 429, 500, 503} {
		all = append(all, classifyResponse(status, "", "", time.Time{}))
	}
	all = append(all, Result{Outcome: Delivered, Reason: natsAcked}, Result{Outcome: Delivered, Reason: natsDuplicate})
	for _, f := range failures {
		all = append(all, classifyResponse(0, f, "", time.Time{}))
	}
	return all
}

// parseRetryAfter reads seconds or one of the three date forms (RFC 9110,
// 10.2.3 and 5.6.7). An invalid value and the past are zero; the most is a day.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(MaxRetryAfter/time.Second) {
			return MaxRetryAfter // digits that overflow
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter)
}
