package deliver

import (
	"strings"
	"testing"
	"time"
)

func TestJudge_EveryStatus(t *testing.T) {
	now := time.Now()
	for status := -1; status <= 1000; status++ {
		want := Result{Outcome: Retry, Reason: "invalid_status", EndpointFault: true}
		switch {
		case status >= 200 && status <= 299:
			want = Result{Outcome: Delivered, Reason: "2xx"}
		case status >= 300 && status <= 399:
			want = Result{Outcome: Retry, Reason: "3xx"}
		case status == 408:
			want = Result{Outcome: Retry, Reason: "408", EndpointFault: true}
		case status == 410:
			want = Result{Outcome: Disable, Reason: "410", DisableReason: "the endpoint answered 410 Gone"}
		case status == 429:
			want = Result{Outcome: Pause, Reason: "429", EndpointFault: true}
		case status == 503:
			want = Result{Outcome: Pause, Reason: "503", EndpointFault: true}
		case status >= 400 && status <= 499:
			want = Result{Outcome: Retry, Reason: "4xx", Smaller: status == 413 || status == 431}
		case status >= 500 && status <= 599:
			want = Result{Outcome: Retry, Reason: "5xx", EndpointFault: true}
		}
		want.Status = status
		if got := classifyResponse(status, "", "", now); got != want {
			t.Errorf("status %d: %+v, want %+v", status, got, want)
		}
	}
}

func TestJudge_EveryFailureIsTheEndpointsOrOurs(t *testing.T) {
	ours := map[failure]bool{failShutdown: true, failNoNetwork: true, failNoResource: true, failDNSHere: true, failSecret: true, failNATSCredentials: true, failLease: true}
	for _, f := range failures {
		want := Result{Outcome: Retry, Reason: string(f), EndpointFault: true}
		if ours[f] {
			want = Result{Outcome: Held, Reason: string(f)}
		}
		if f == failNATSPermission || f == failNATSNoSubject || f == failNATSSubjectFull { // of one subject; the others go on
			want.EndpointFault = false
		}
		if f == failTooLarge || f == failNATSTooLarge { // the event's own, and the same the next time
			want = Result{Outcome: Dead, Reason: string(f)}
		}
		want.Shown, want.Unsent, want.Lasting = string(f.shown()), f.unsent(), f.lasts()
		want.Smaller = f == failRender // of a batch it may be one event's
		if got := classifyResponse(0, f, "120", time.Now()); got != want {
			t.Errorf("%s: %+v, want %+v", f, got, want)
		}
	}
}

// Every failure is explained; and for accounts those, and only those, that they see.
func TestReasons_ExplainWhatAccountsSee(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range failures {
		if !strings.HasPrefix(string(f), "nats_") { // no account has such an endpoint
			seen[string(f.shown())] = true
		}
	}
	explained := map[string]bool{}
	for _, r := range Reasons() {
		explained[r.Name] = true
		if _, failed := explanations[failure(r.Name)]; failed && (r.Account != "") != seen[r.Name] {
			t.Errorf("%s: accounts see it: %t; they read %q", r.Name, seen[r.Name], r.Account)
		}
	}
	for _, r := range Results() {
		if !explained[r.Reason] && r.Status != 100 { // invalid_status
			t.Errorf("%s is not explained", r.Reason)
		}
	}
}

func TestJudge_RetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"absent", "", 0},
		{"seconds", "120", 2 * time.Minute},
		{"zero", "0", 0},
		{"white space", " 7 ", 7 * time.Second},
		{"a day", "86400", 24 * time.Hour},
		{"more than a day", "86401", 24 * time.Hour},
		{"overflow", "99999999999999999999999", 24 * time.Hour},
		{"negative", "-5", 0},
		{"fraction", "1.5", 0},
		{"garbage", "soon", 0},
		{"IMF-fixdate", "Sun, 01 Mar 2026 12:01:00 GMT", time.Minute},
		{"RFC 850", "Sunday, 01-Mar-26 12:02:00 GMT", 2 * time.Minute},
		{"asctime", "Sun Mar  1 12:03:00 2026", 3 * time.Minute},
		{"past date", "Sun, 01 Mar 2026 11:00:00 GMT", 0},
		{"date next year", "Mon, 01 Mar 2027 12:00:00 GMT", 24 * time.Hour},
	} {
		for _, status := range []int{429, 503, 500, 404, 408} {
			if got := classifyResponse(status, "", c.value, now).After; got != c.want {
				t.Errorf("%s (%q) with %d: %v, want %v", c.name, c.value, status, got, c.want)
			}
		}
		if got := classifyResponse(200, "", c.value, now).After; got != 0 {
			t.Errorf("%s with 200: %v, want nothing", c.name, got)
		}
	}
}

func TestAnswer_ADateInRetryAfterCountsByTheReceiversClock(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a := answer{status: 503, retryAfter: "Sun, 01 Mar 2026 09:02:00 GMT", date: now.Add(-3 * time.Hour)} // its clock is slow
	if got := classifyResponse(a.status, "", a.retryAfter, a.clock(now)).After; got != 2*time.Minute {
		t.Errorf("pauses for %v, want 2m", got)
	}
	a.date = time.Time{}
	if got := classifyResponse(a.status, "", a.retryAfter, a.clock(now)).After; got != 0 {
		t.Errorf("pauses for %v for a date in the past", got)
	}
}

func TestJudge_EveryStatusWithEveryFailureClass(t *testing.T) {
	for _, f := range failures {
		for status := range 1000 {
			if got, want := classifyResponse(status, f, "60", time.Now()), classifyResponse(0, f, "", time.Now()); got != want {
				t.Fatalf("%s with status %d: %+v, want %+v as without", f, status, got, want)
			}
		}
		if f.unsent() && f.own() {
			t.Errorf("%s is both ours and said to count as the endpoint's", f)
		}
	}
}
