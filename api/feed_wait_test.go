package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"walhook/internal/pgtest"
)

// streamed is an event of a stream.
type streamed struct {
	id   string
	data map[string]any // nil for a keep-alive
}

// streamReader reads a stream of server-sent events as a browser does.
type streamReader struct {
	response *http.Response
	lines    *bufio.Reader
	last     string // the last event's id
}

func (w *world) stream(t *testing.T, token, path string, headers ...string) *streamReader {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", w.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Auth-Token", token)
	request.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if kind := response.Header.Get("Content-Type"); response.StatusCode != 200 || kind != "text/event-stream" {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("stream: %d %s %s", response.StatusCode, kind, text)
	}
	return &streamReader{response: response, lines: bufio.NewReader(response.Body)}
}

// next returns the next block that has data; its error is that of the stream's end.
func (s *streamReader) next() (e streamed, err error) {
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case line == "" && e.data != nil:
			return e, nil
		case strings.HasPrefix(line, "id: "):
			e.id = line[4:]
			s.last = e.id
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(line[6:]), &e.data); err != nil {
				return e, err
			}
		}
	}
}

// ids reads so many events.
func (s *streamReader) ids(t *testing.T, n int) (ids []string) {
	t.Helper()
	for range n {
		e, err := s.next()
		if err != nil {
			t.Fatalf("after %v: %v", ids, err)
		}
		ids = append(ids, strings.TrimPrefix(e.data["event_id"].(string), "evt_"))
	}
	return ids
}

func TestFeed_ALongPollAnswersWithTheFirstEvents(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id, other := w.webhook(t, token, "7", ""), w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	began := time.Now()
	r := w.want(t, 200, token, "GET", path+"?wait=1", "")
	if ids, _ := feedIDs(t, r); len(ids) != 0 || time.Since(began) < time.Second {
		t.Errorf("a poll without events: %v after %v", ids, time.Since(began))
	}
	_, cursor := feedIDs(t, r)
	for n := 1; n <= 5; n++ {
		got := make(chan reply, 1)
		go func() { got <- w.call(t, token, "GET", path+"?wait=60&after="+cursor, "") }()
		w.waiting(t, 1)
		w.append(t, other, n*10)
		w.append(t, id, n*10+1, n*10+2)
		r := <-got
		var ids []string
		if ids, cursor = feedIDs(t, r); fmt.Sprint(ids) != fmt.Sprintf("[%d %d]", n*10+1, n*10+2) {
			t.Fatalf("poll %d: %v %s", n, ids, r.text)
		}
	}
	w.want(t, 400, token, "GET", path+"?wait=61", "")
}

// waiting waits until so many readers wait.
func (w *world) waiting(t *testing.T, n int) {
	t.Helper()
	patience := time.Now().Add(90 * time.Second)
	for {
		w.feeds.mu.Lock()
		have := len(w.feeds.readers)
		w.feeds.mu.Unlock()
		if have == n {
			return
		}
		if time.Now().After(patience) {
			t.Fatalf("%d readers wait, want %d", have, n)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestFeed_AStreamGoesOnWhereItWas(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	w.append(t, id, 1, 2)
	s := w.stream(t, token, path)
	if ids := s.ids(t, 2); fmt.Sprint(ids) != "[1 2]" {
		t.Errorf("what was there: %v", ids)
	}
	w.append(t, id, 3)
	if ids := s.ids(t, 1); fmt.Sprint(ids) != "[3]" {
		t.Errorf("what came: %v", ids)
	}
	s.response.Body.Close()
	w.append(t, id, 4, 5)
	again := w.stream(t, token, path+"?last=0", "Last-Event-ID", s.last)
	w.append(t, id, 6)
	if ids := again.ids(t, 3); fmt.Sprint(ids) != "[4 5 6]" {
		t.Errorf("after a cut: %v", ids)
	}
	fresh := w.stream(t, token, path+"?last=0")
	w.append(t, id, 7)
	if ids := fresh.ids(t, 1); fmt.Sprint(ids) != "[7]" {
		t.Errorf("from now on: %v", ids)
	}
	if r := w.call(t, token, "GET", path, "", "Accept", "text/event-stream", "Last-Event-ID", "nonsense"); r.status != 400 {
		t.Errorf("a malformed Last-Event-ID: %d %s", r.status, r.text)
	}
}

// A stream may be cut anywhere: the last id of what has arrived leads to everything else.
func TestFeed_EveryIDOfAStreamIsAPlaceAfterWhatCame(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	w.append(t, id, 1, 2, 3)
	_, begin := feedIDs(t, w.want(t, 200, token, "GET", path+"?limit=1", ""))
	for _, from := range []struct {
		query, header string
		before        int
	}{{"", "", 0}, {"?last=2", "", 1}, {"?after=" + begin, "", 1}, {"?last=0", begin, 1}, {"?last=0", "", 3}} {
		headers := []string{"Last-Event-ID", from.header}
		if from.header == "" {
			headers = nil
		}
		s, came := w.stream(t, token, path+from.query, headers...), from.before
		if from.before == 3 {
			w.append(t, id, 4)
		}
		for last := ""; came < 3+from.before/3; {
			line, err := s.lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case strings.HasPrefix(line, "id: "):
				last = strings.TrimSpace(line[4:])
			case strings.HasPrefix(line, "data: "):
				came++
			case line == "\n" && last != "":
				if rest, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+last, "")); len(rest) > 0 && rest[0] != fmt.Sprint(came+1) || len(rest) == 0 && came < 3 {
					t.Errorf("%v: after %d events the id leads to %v", from, came, rest)
				}
			}
		}
		_ = s.response.Body.Close()
	}
}

// However events come, in bursts that no queue holds and while readers come and go, each
// reader gets each event once, in order.
func TestFeed_NoReaderMissesAnEvent(t *testing.T) {
	w := newWorld(t)
	id := w.webhook(t, adminToken, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	const all = 6000
	var readers sync.WaitGroup
	check := func(what string, next *int, ids []string) bool {
		for _, got := range ids {
			if *next++; got != fmt.Sprint(*next) {
				t.Errorf("%s: event %s, want %d", what, got, *next)
				*next = all
				return false
			}
		}
		return true
	}
	for n := range 3 {
		readers.Go(func() { // polls, in pages of different sizes
			next, cursor := 0, ""
			for next < all {
				r := w.call(t, adminToken, "GET", fmt.Sprintf("%s?wait=20&limit=%d%s", path, 7+n*200, cursor), "")
				if r.status != 200 {
					t.Errorf("poll: %d %s", r.status, r.text)
					return
				}
				var ids []string
				ids, cursor = feedIDs(t, r)
				if cursor = "&after=" + cursor; !check("poll", &next, ids) {
					return
				}
			}
		})
		readers.Go(func() { // streams, cut now and then
			next, last := 0, ""
			for next < all {
				headers := []string{}
				if last != "" {
					headers = []string{"Last-Event-ID", last}
				}
				s := w.stream(t, adminToken, path, headers...)
				for range 500 + n*700 {
					e, err := s.next()
					if err != nil || !check("stream", &next, []string{strings.TrimPrefix(e.data["event_id"].(string), "evt_")}) || next == all {
						break
					}
				}
				last = s.last
				s.response.Body.Close()
			}
		})
	}
	for from := 1; from <= all; {
		upto := min(from+[]int{1, 3, 40, 1500}[from%4], all+1)
		var ids []int
		for i := from; i < upto; i++ {
			ids = append(ids, i)
		}
		w.append(t, id, ids...)
		from = upto
	}
	readers.Wait()
}

// Thousands that wait cost the outbox no more than one.
func TestFeed_ThousandsOfReadersShareOneTail(t *testing.T) {
	readers := 2000
	if raceDetector {
		readers = 300 // what it makes of more keeps two cores busy for longer than statements may take
	}
	t.Parallel()
	db := pgtest.Database(t)
	statements := db.CountStatements(t)
	w := newWorldIn(t, db)
	var paths, webhooks []string
	for n := range 20 {
		account := fmt.Sprint(100 + n)
		webhooks = append(webhooks, w.webhook(t, adminToken, account, ""))
		paths = append(paths, "/v2/accounts/"+account+"/webhooks/"+webhooks[n]+"/feed?last=0")
	}
	transport := &http.Transport{MaxConnsPerHost: 0, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	got, opening := make(chan string, readers), make(chan struct{}, 50)
	for n := range readers {
		go func() {
			opening <- struct{}{}
			request, _ := http.NewRequestWithContext(t.Context(), "GET", w.url+paths[n%20], nil)
			request.Header.Set("X-Auth-Token", adminToken)
			request.Header.Set("Accept", "text/event-stream")
			response, err := transport.RoundTrip(request)
			<-opening
			if err != nil {
				got <- err.Error()
				return
			}
			defer response.Body.Close()
			e, err := (&streamReader{lines: bufio.NewReader(response.Body)}).next()
			if err != nil {
				got <- fmt.Sprint(response.StatusCode, " ", err)
				return
			}
			got <- e.data["event_id"].(string)
		}()
	}
	w.waiting(t, readers)
	// Each reader has looked once for what was there before it came. Then the tail looks
	// ten times a second and checks twice in 50 ms, however many wait.
	const resting = 10 + 2*20
	for began, before := time.Now(), statements.Load(); ; began, before = time.Now(), statements.Load() {
		time.Sleep(time.Second)
		if float64(statements.Load()-before) <= resting*time.Since(began).Seconds()+1 {
			break
		}
	}
	before, began := statements.Load(), time.Now()
	time.Sleep(2 * time.Second)
	for n, webhook := range webhooks {
		w.append(t, webhook, 1000+n)
	}
	for range readers {
		if id := <-got; !strings.HasPrefix(id, "evt_10") {
			t.Fatalf("a reader got %s", id)
		}
	}
	n, took := statements.Load()-before, time.Since(began)
	if most := int64(took.Seconds()*resting) + 200; n > most {
		t.Errorf("%d statements in %v while %d readers waited and got an event, want at most %d", n, took, readers, most)
	}
	t.Logf("%d statements in %v for %d readers", n, took, readers)
}

// An account has so many readers, and a further one is told when to come again.
func TestFeed_AnAccountHasSoManyReaders(t *testing.T) {
	w := newWorld(t)
	token, other := w.token(t, "7", ""), w.token(t, "8", "")
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", "") + "/feed"
	for n := range feedCall.account.running {
		s := w.stream(t, token, path)
		w.waiting(t, n+1)
		defer s.response.Body.Close()
	}
	r := w.call(t, token, "GET", path+"?wait=1", "")
	if r.status != 429 || r.header.Get("Retry-After") == "" || !strings.Contains(r.text, "too many readers") {
		t.Errorf("one reader more: %d %v %s", r.status, r.header, r.text)
	}
	w.want(t, 200, other, "GET", "/v2/accounts/8/webhooks/"+w.webhook(t, other, "8", "")+"/feed", "")
	w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks", "")
}

// The readers of all accounts leave connections for other calls.
func TestFeed_AProcessHasSoManyReaders(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.FeedReaders = 3 })
	path := func(n int) string {
		account := fmt.Sprint(10 + n)
		return "/v2/accounts/" + account + "/webhooks/" + w.webhook(t, adminToken, account, "") + "/feed"
	}
	var first *streamReader
	for n := range 3 {
		s := w.stream(t, adminToken, path(n))
		w.waiting(t, n+1)
		if n == 0 {
			first = s
		} else {
			defer s.response.Body.Close()
		}
	}
	refused := path(3)
	if r := w.call(t, adminToken, "GET", refused, ""); r.status != 429 || r.header.Get("Retry-After") == "" {
		t.Errorf("one reader more: %d %v %s", r.status, r.header, r.text)
	}
	w.want(t, 200, adminToken, "GET", "/v2/accounts/10/webhooks", "")
	_ = first.response.Body.Close()
	w.waiting(t, 2)
	w.want(t, 200, adminToken, "GET", refused, "")
}

func TestWantsStream_GoesByTheWeight(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/event-stream": true, "application/json, Text/Event-Stream;q=0.1": true, "text/event-stream; charset=utf-8": true,
		"text/event-stream;q=0, application/json": false, "text/event-stream;q=0.000": false, "*/*": false, "": false, "text/event-streams": false,
	} {
		if got := wantsStream(accept); got != want {
			t.Errorf("%q: %v, want %v", accept, got, want)
		}
	}
}
