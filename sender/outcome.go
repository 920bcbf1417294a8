package sender

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The outcomes of an attempt: what is done next. Also the metric's label.
const (
	outcomeDelivered = "delivered" // acknowledged
	outcomeRetry     = "retry"     // this event again later
	outcomePause     = "pause"     // this event again later, and no other before
	outcomeDisable   = "disable"   // the endpoint wants no more
	outcomeDead      = "dead"      // the schedule is exhausted, or no attempt can be made
	outcomeHeld      = "held"      // our own fault: costs the endpoint nothing
)

// outcome is what an attempt means.
type outcome struct {
	kind   string
	reason string
	// after is what the receiver asked for by Retry-After; zero for nothing.
	after time.Duration
	// endpointFault counts towards opening the breaker: the endpoint as a
	// whole is in trouble, as far as one answer can say.
	endpointFault bool
}

// maxRetryAfter is the longest wait that a receiver may ask for.
const maxRetryAfter = 24 * time.Hour

// judge is the whole table. It is pure: status counts when there is no failure
// class, retryAfter is the header's value, "" when absent, and now is by the
// clock that a date in it was read from.
func judge(status int, class failure, retryAfter string, now time.Time) outcome {
	if class != "" {
		if class.own() {
			return outcome{kind: outcomeHeld, reason: string(class)}
		}
		if class == failTooLarge {
			return outcome{kind: outcomeDead, reason: string(class)} // it is no smaller the next time
		}
		return outcome{kind: outcomeRetry, reason: string(class), endpointFault: true}
	}
	switch {
	case status >= 200 && status < 300:
		return outcome{kind: outcomeDelivered, reason: "2xx"}
	case status >= 300 && status < 400:
		return outcome{kind: outcomeRetry, reason: "3xx"}
	case status == http.StatusGone:
		return outcome{kind: outcomeDisable, reason: "410"}
	case status == http.StatusTooManyRequests:
		return outcome{kind: outcomePause, reason: "429", after: parseRetryAfter(retryAfter, now), endpointFault: true}
	case status == http.StatusServiceUnavailable:
		return outcome{kind: outcomePause, reason: "503", after: parseRetryAfter(retryAfter, now), endpointFault: true}
	case status == http.StatusRequestTimeout:
		return outcome{kind: outcomeRetry, reason: "408", after: parseRetryAfter(retryAfter, now), endpointFault: true}
	case status >= 400 && status < 500:
		return outcome{kind: outcomeRetry, reason: "4xx", after: parseRetryAfter(retryAfter, now)}
	case status >= 500 && status < 600:
		return outcome{kind: outcomeRetry, reason: "5xx", after: parseRetryAfter(retryAfter, now), endpointFault: true}
	}
	return outcome{kind: outcomeRetry, reason: string(failStatus), endpointFault: true}
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
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter // digits that overflow
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
