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

// Destination is where events go: an HTTP receiver, or another kind of system.
// Whoever delivers knows it by its results alone.
type Destination interface {
	// Deliver makes one attempt and says what it came to. It sends the event at
	// most once, returns soon after ctx ends, and is safe for many goroutines. It
	// changes neither endpoint nor event.
	Deliver(ctx context.Context, endpoint outbox.Endpoint, event outbox.Event) Result
}

// Outcome is what an attempt means: what is done next. It is also a label of
// metrics.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // acknowledged
	Retry     Outcome = "retry"     // this event again later
	Pause     Outcome = "pause"     // this event again later, and no other before
	Disable   Outcome = "disable"   // the endpoint wants no more
	Dead      Outcome = "dead"      // no attempt can deliver it, or the schedule is exhausted
	Held      Outcome = "held"      // this side's own fault: costs the endpoint nothing
)

// Result is what an attempt came to.
type Result struct {
	Outcome Outcome
	// Reason is why, for operators: a label of metrics.
	Reason string
	// Shown is why, as the account may see it. "" means Reason.
	Shown string
	// Detail is for people: bounded, without secrets and without what was sent.
	// With a Status the account may see it; without one it is the operator's
	// alone, since it names addresses.
	Detail string
	// Status is that of HTTP; 0 where there was no answer, or HTTP is not spoken.
	Status int
	// After is how long the destination asks to be left alone; zero for no wish.
	After time.Duration
	// EndpointFault counts towards opening the endpoint's breaker: the endpoint as
	// a whole is in trouble, as far as one attempt can say.
	EndpointFault bool
	// Unsent says that the event never left, so that it cannot be what the
	// endpoint fails at.
	Unsent bool
	// Lasting says of a Held attempt that its cause may go on until somebody acts,
	// and so is shown.
	Lasting bool
	// DisableReason says with Disable why, in words for the account.
	DisableReason string

	At       time.Time     // when the attempt began
	Duration time.Duration // how long it took
}

// ForAccount is why, as the account may see it.
func (r *Result) ForAccount() string { return cmp.Or(r.Shown, r.Reason) }

// longestAttempt is beyond what any attempt takes; a clock may say otherwise.
const longestAttempt = 24 * time.Hour

// Attempt is the result as it is stored, with the outcome that the schedule made
// of it. Whatever an answer or a clock said, what leaves here fits its column:
// this is the one place where it is made.
func (r *Result) Attempt(number int, revision int64, outcome Outcome) outbox.Attempt {
	status := r.Status
	if status < 0 || status > 999 {
		status = 0
	}
	return outbox.Attempt{
		At: r.At, Number: min(max(number, 0), math.MaxInt32), Revision: revision,
		Duration: min(max(r.Duration, 0), longestAttempt),
		Status:   status, Outcome: string(outcome), Reason: r.ForAccount(), Detail: schemas.Storable(clip(r.Detail)),
	}
}

// MaxRetryAfter is the longest wait that a receiver may ask for.
const MaxRetryAfter = 24 * time.Hour

// judge is the whole table of HTTP. It is pure: status counts when there is no
// failure class, retryAfter is the header's value, "" when absent, and now is by
// the clock that a date in it was read from.
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
	case status >= 500 && status < 600:
		r.Reason, r.EndpointFault = "5xx", true
	default:
		r.Reason, r.EndpointFault = string(failStatus), true
		return r
	}
	r.After = parseRetryAfter(retryAfter, now)
	return r
}

// classifyFailure is judge of an attempt that got no answer.
func classifyFailure(class failure) Result {
	r := Result{Outcome: Retry, Reason: string(class), Shown: string(class.shown()), Unsent: class.unsent(), EndpointFault: true}
	switch {
	case class.own():
		r.Outcome, r.EndpointFault, r.Lasting = Held, false, class.lasts()
	case class == failTooLarge:
		r.Outcome, r.EndpointFault = Dead, false // it is no smaller the next time
	}
	return r
}

// Results are the outcomes and reasons that an attempt over HTTP can come to.
func Results() []Result {
	var all []Result
	for _, status := range []int{100, 200, 300, 400, 408, 410, 429, 500, 503} {
		all = append(all, classifyResponse(status, "", "", time.Time{}))
	}
	for _, f := range failures {
		all = append(all, classifyResponse(0, f, "", time.Time{}))
	}
	return all
}

// parseRetryAfter reads seconds or one of the three date forms (RFC 9110,
// 10.2.3 and 5.6.7). Garbage and the past are zero; more than a day is a day.
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
