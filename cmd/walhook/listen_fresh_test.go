package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowWorld is an API with a backlog and a receiver that takes long for each event, on one
// clock, which moves with each request of the receiver.
type slowWorld struct {
	mu     sync.Mutex
	now    time.Time
	skew   time.Duration // of the header Date, which a proxy may write
	noDate bool
	takes  func(event int) time.Duration
	events int
	refuse map[int]int // how often the receiver answers 503
	stop   func()

	took    []int // events that the receiver answered 2xx
	oldest  time.Duration
	sent    int // events that the API wrote
	streams int
	pages   []int // the limits
}

func (w *slowWorld) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *slowWorld) event(n int) json.RawMessage {
	w.sent++
	id := fmt.Sprint("evt_", n)
	text, _ := json.Marshal(pulledEvent{EventID: id, Cursor: fmt.Sprint("c", n), Method: "POST", Body: hookBody, Headers: map[string]string{
		"webhook-id": id, "webhook-timestamp": fmt.Sprint(w.now.Unix()), "webhook-signature": signHook(&testing.T{}, id, w.now.Unix(), hookBody)}})
	return text
}

// feed answers a stream with everything at once: the events wait in the connection, signed.
func (w *slowWorld) feed(out http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/feed") {
		fmt.Fprintf(out, `{"data":{"secret":%q}}`, hookSecret)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	out.Header().Set("Date", w.now.Add(w.skew).UTC().Format(http.TimeFormat))
	if w.noDate {
		out.Header()["Date"] = nil
	}
	after := func(cursor string) int { n, _ := strconv.Atoi(strings.TrimPrefix(cursor, "c")); return n }
	if r.Header.Get("Accept") != "text/event-stream" {
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		w.pages = append(w.pages, limit)
		from := after(r.URL.Query().Get("after"))
		upto := min(from+limit, w.events)
		page := map[string]any{"cursor": fmt.Sprint("c", upto), "more": upto < w.events}
		data := []json.RawMessage{}
		for n := from + 1; n <= upto; n++ {
			data = append(data, w.event(n))
		}
		page["data"] = data
		_ = json.NewEncoder(out).Encode(page)
		return
	}
	w.streams++
	from := after(r.Header.Get("Last-Event-ID"))
	if from == w.events {
		w.stop()
	}
	fmt.Fprintf(out, "id: c%d\n\n", from)
	for n := from + 1; n <= w.events; n++ {
		fmt.Fprintf(out, "id: c%d\ndata: %s\n\n", n, w.event(n))
	}
}

// receive checks the timestamp to five minutes, at the end of what it does.
func (w *slowWorld) receive(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, _ := strconv.Atoi(strings.TrimPrefix(r.Header.Get("webhook-id"), "evt_"))
	at, _ := strconv.ParseInt(r.Header.Get("webhook-timestamp"), 10, 64)
	w.oldest = max(w.oldest, w.now.Sub(time.Unix(at, 0)))
	w.now = w.now.Add(w.takes(n))
	switch {
	case w.now.Sub(time.Unix(at, 0)) > 5*time.Minute:
		out.WriteHeader(http.StatusUnauthorized)
	case w.refuse[n] > 0:
		w.refuse[n]--
		out.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.took = append(w.took, n)
	}
}

// A receiver that is slow gets each event once and in order, signed less than a minute ago,
// wherever the events waited meanwhile, and whatever the header Date says.
func TestListenFrom_ForwardsWhatWasSignedJustNow(t *testing.T) {
	every := func(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }
	for name, test := range map[string]struct {
		world   *slowWorld
		file    bool
		mostly  int // events that the API wrote at most
		asPages bool
	}{
		"4 s an event":             {&slowWorld{takes: every(4 * time.Second), events: 100}, false, 200, true},
		"with a cursor file":       {&slowWorld{takes: every(4 * time.Second), events: 100, refuse: map[int]int{1: 1, 40: 1, 60: 1}}, true, 400, true},
		"30 s an event":            {&slowWorld{takes: every(29 * time.Second), events: 30}, false, 90, true},
		"fast":                     {&slowWorld{takes: every(10 * time.Millisecond), events: 300}, false, 300, false},
		"no Date":                  {&slowWorld{takes: every(4 * time.Second), events: 100, noDate: true}, false, 200, true},
		"a Date an hour ahead":     {&slowWorld{takes: every(4 * time.Second), events: 100, skew: time.Hour}, false, 200, true},
		"a Date an hour behind":    {&slowWorld{takes: every(4 * time.Second), events: 100, skew: -time.Hour}, false, 200, true},
		"slow in between":          {&slowWorld{takes: func(n int) time.Duration { return time.Duration(n/100%2) * 7 * time.Second }, events: 300}, false, 1000, true},
		"a pause of five minutes":  {&slowWorld{takes: func(n int) time.Duration { return map[bool]time.Duration{true: 299 * time.Second}[n%50 == 7] }, events: 100}, false, 400, true},
		"one event, half a minute": {&slowWorld{takes: every(29 * time.Second), events: 1}, false, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := test.world
			w.now = time.Unix(time.Now().Unix(), 0)
			ctx, stop := context.WithCancel(t.Context())
			w.stop = stop
			api, receiver := httptest.NewServer(http.HandlerFunc(w.feed)), httptest.NewServer(http.HandlerFunc(w.receive))
			defer api.Close()
			defer receiver.Close()
			o := listenOptions{addr: "127.0.0.1:0", status: 200, from: api.URL + "/v2/accounts/7/webhooks/made", token: "tok", forward: receiver.URL, json: true}
			if test.file {
				o.cursorFile = filepath.Join(t.TempDir(), "place")
			}
			var out, warnings bytes.Buffer
			l := newFeedListener(o, &out)
			l.warnings, l.now = &warnings, w.clock
			if err := l.run(ctx); err != nil {
				t.Fatal(err)
			}
			want := make([]int, w.events)
			for i := range want {
				want[i] = i + 1
			}
			if !slices.Equal(w.took, want) {
				t.Errorf("taken %v, want 1 to %d in order", w.took, w.events)
			}
			if w.oldest > freshFor {
				t.Errorf("a signature was %v old", w.oldest)
			}
			if w.sent > test.mostly {
				t.Errorf("the API wrote %d events, want %d at most", w.sent, test.mostly)
			}
			if asPages := len(w.pages) > 0; asPages != test.asPages {
				t.Errorf("pages of %v", w.pages)
			}
			if kept, _ := os.ReadFile(o.cursorFile); test.file && string(kept) != fmt.Sprintf("c%d\n", w.events) {
				t.Errorf("kept %q", kept)
			}
			if strings.Contains(warnings.String(), "broke off") {
				t.Errorf("warned of %s", &warnings)
			}
			t.Logf("%d streams, pages %v, %d events written, the oldest %v", w.streams, w.pages, w.sent, w.oldest)
		})
	}
}

// The age of a signature goes by the API's clock and by what has passed here since.
func TestFeedClock_TellsTheAgeOfASignature(t *testing.T) {
	start, here := time.Unix(1_800_000_000, 0), time.Unix(5, 0) // this machine's clock is wrong
	type step struct{ signed, now, age time.Duration }
	for name, test := range map[string]struct {
		date  string
		steps []step
	}{
		"read at once":           {"0s", []step{{0, 0, 0}}},
		"waited":                 {"0s", []step{{0, 0, 0}, {0, 90, 90}}},
		"waited from the start":  {"0s", []step{{0, 90, 90}}},
		"signed later":           {"0s", []step{{600, 600, 0}, {600, 690, 90}, {700, 700, 0}}},
		"signed later, waited":   {"0s", []step{{600, 690, 90}}},
		"a Date ahead":           {"1h", []step{{0, 0, 0}, {0, 90, 90}, {600, 600, 0}, {600, 700, 100}}},
		"a Date behind":          {"-1h", []step{{0, 0, 0}, {0, 90, 90}, {600, 600, 0}, {600, 700, 100}}},
		"no Date":                {"", []step{{0, 0, 0}, {0, 90, 90}, {600, 600, 0}}},
		"the machine's set back": {"0s", []step{{0, 100, 100}, {600, -3600, 0}, {600, -3510, 90}}},
	} {
		t.Run(name, func(t *testing.T) {
			date := ""
			if off, err := time.ParseDuration(test.date); err == nil {
				date = start.Add(off).UTC().Format(http.TimeFormat)
			}
			c := newFeedClock(date, here)
			for _, s := range test.steps {
				if age := c.age(start.Add(s.signed*time.Second), here.Add(s.now*time.Second)); age != s.age*time.Second {
					t.Errorf("signed at %d, read at %d: %v old, want %d s", s.signed, s.now, age, s.age)
				}
			}
		})
	}
}

// On a connection so slow that every event comes too late, each is read again once, and
// then forwarded: listen does not stand still.
func TestListenFrom_ReadsAnEventAgainOnce(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := newFeedListener(listenOptions{}, &bytes.Buffer{})
	l.now = func() time.Time { return now }
	for n := range 3 {
		for try, want := range []bool{true, false} {
			l.clock = newFeedClock(now.UTC().Format(http.TimeFormat), now)
			e := pulledEvent{Cursor: fmt.Sprint("c", n), Headers: map[string]string{"webhook-timestamp": fmt.Sprint(now.Unix())}}
			now = now.Add(2 * freshFor)
			if got := l.aged(&e); got != want {
				t.Errorf("event %d, read %d times: read again %t", n, try+1, got)
			}
			if !want {
				if err := l.handled(&e); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
