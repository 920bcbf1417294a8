package endtoend

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

const (
	routesSeed    = 14 // of the short run
	routesShots   = 1600
	routesShort   = 6 * time.Second // the short run sends no more after it
	routesSenders = 12              // some wait for a limit of time most of the while
	// answeredWithin is how long any request may take, whatever else is going on.
	answeredWithin = 20 * time.Second
	// goodWithin is how long somebody else's good request may take meanwhile.
	goodWithin = 5 * time.Second
	// deliveredWithin is how long somebody else's event may take meanwhile.
	deliveredWithin = 10 * time.Second

	attackedAccount  = "918273645"
	bystanderAccount = "564738291"
)

// routesWorld is one whole walhook, and beside what is sent to its API an account that knows nothing of it: its requests are answered and its events
// are delivered all the while.
type routesWorld struct {
	address string
	maker   *maker
	db      *pgtest.DB
	arrived chan int // numbers of the bystander's events
	process *childProcess
	leave   func() // ends the bystander
	read    int64  // how much of its log readLog has read

	mu       sync.Mutex
	faults   map[string]int
	made     []made
	statuses map[int]int    // answers
	tally    map[string]int // … by route and class of status
}

// made is a webhook, a token or whatever else a PUT made.
type made struct{ path, id string }

// kind is what it is, as its path says.
func (m made) kind() string { return m.path[strings.LastIndex(m.path, "/")+1:] }

func newRoutesWorld(t testing.TB) *routesWorld {
	t.Helper()
	w := &routesWorld{arrived: make(chan int, 1000), faults: map[string]int{}, statuses: map[int]int{}, tally: map[string]int{}}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/bystander" {
			w.arrived <- numberOf(body)
		}
	}))
	t.Cleanup(receiver.Close)
	w.db = pgtest.Database(t)
	w.db.Exec(t, carrier.Tables)
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) VALUES (%s, 'attacked', '%s/attacked'), (%s, 'bystander', '%[2]s/bystander')`,
		attackedAccount, receiver.URL, bystanderAccount))
	w.address = loopback.Address(t)
	w.run(t)
	awaitReady(t, w.address)
	operator := apiClient{"http://" + w.address + "/v2/accounts/", chaosOperator}
	token := func(account string) string {
		return data(t, operator.call(t, 201, "PUT", account+"/tokens", ""))["token"].(string)
	}
	w.maker = &maker{account: attackedAccount, token: token(attackedAccount), operator: chaosOperator, target: receiver.URL + "/attacked", ids: w.ids, webhookOf: w.webhookOf}
	response, err := http.Get("http://" + w.address + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if w.maker.routes, w.maker.schemas, err = readRoutes(text); err != nil || len(w.maker.routes) < 40 {
		t.Fatalf("%d routes in the OpenAPI document: %v", len(w.maker.routes), err)
	}
	w.maker.routes = append(w.maker.routes, outsideRoutes...)
	w.bystand(t, token(bystanderAccount))
	return w
}

// run starts walhook; end ends it.
func (w *routesWorld) run(t testing.TB) {
	t.Helper()
	// Nothing leaves this machine, whatever URL a webhook gets.
	w.process = startChild(t, "run", "--source", w.db.URL, "--slot", "routes_"+w.db.Name, "--setup", "--listen", w.address, "--admin-token", chaosOperator,
		"--allow-cidr", "127.0.0.1/32", "--egress-address", "127.0.0.1", "--attempt-timeout", "2s")
}

// end has the bystander leave and walhook end, and tells what was found.
func (w *routesWorld) end(t testing.TB) {
	t.Helper()
	w.leave()
	w.process.stop(t)
	w.judge(t)
}

// readLog makes a fault of each new line of the log that is a panic's, an error's,
// or no line of the log at all: what the runtime writes as it gives up.
func (w *routesWorld) readLog(t testing.TB) {
	t.Helper()
	log, err := os.Open(w.process.logs)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	text, err := io.ReadAll(io.NewSectionReader(log, w.read, math.MaxInt64-w.read))
	if err != nil {
		t.Fatal(err)
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	w.read += int64(len(whole))
	for line := range bytes.Lines(whole) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			w.fault("the log says: %.2000s", line)
			continue
		}
		level, message := fmt.Sprint(fields["level"]), fmt.Sprint(fields["msg"])
		if slices.Contains([]string{"debug", "info", "warn"}, level) && !strings.Contains(message, "panic") {
			continue
		}
		for _, each := range []string{"level", "msg", "time", "request_id"} {
			delete(fields, each)
		}
		w.fault("the log says: %s %.300s %.1500s", level, message, fmt.Sprint(fields))
	}
}

// bystand has the bystander ask and change records until it leaves.
func (w *routesWorld) bystand(t testing.TB, token string) {
	ctx, cancel := context.WithCancel(t.Context())
	conn := w.db.Connect(t)
	var all sync.WaitGroup
	w.leave = func() {
		cancel()
		all.Wait()
	}
	t.Cleanup(w.leave)
	all.Go(func() {
		client := &http.Client{Timeout: goodWithin, Transport: &http.Transport{DisableKeepAlives: true}}
		for linger(ctx, 200*time.Millisecond) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.address+"/v2/accounts/"+bystanderAccount+"/webhooks", nil)
			if err != nil {
				w.fault("%v", err)
				return
			}
			request.Header.Set("X-Auth-Token", token)
			response, err := client.Do(request)
			if err != nil {
				if ctx.Err() == nil {
					w.fault("a good request of another account has no answer: %v", err)
				}
				continue
			}
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				w.fault("a good request of another account is answered %d", response.StatusCode)
			}
		}
	})
	all.Go(func() {
		for n := 1; linger(ctx, 200*time.Millisecond); n++ {
			if _, err := conn.Exec(ctx, `INSERT INTO dids (id, user_id, number) VALUES ($1, $2::text::bigint, '3125551212')`, n, bystanderAccount); err != nil {
				if ctx.Err() == nil {
					w.fault("insert on the source: %v", err)
				}
				return
			}
			if n%5 == 1 { // the attacked account's webhooks have events, too
				if _, err := conn.Exec(ctx, `INSERT INTO dids (id, user_id, number) VALUES ($1, $2::text::bigint, '3125551212')`, 1_000_000+n, attackedAccount); err != nil && ctx.Err() == nil {
					w.fault("insert on the source: %v", err)
				}
			}
			select {
			case got := <-w.arrived:
				if got != n {
					w.fault("event %d of another account arrived instead of %d", got, n)
				}
				w.count("bystander", "delivered")
			case <-time.After(deliveredWithin):
				w.fault("event %d of another account did not arrive within %s", n, deliveredWithin)
			case <-ctx.Done():
			}
		}
	})
}

// numberOf is the id of the record that an event is about; 0 for none.
func numberOf(body []byte) int {
	var envelope struct{ Data string }
	var record struct{ ID int }
	_ = json.Unmarshal(body, &envelope)
	_ = json.Unmarshal([]byte(envelope.Data), &record)
	return record.ID
}

func (w *routesWorld) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) < 200 {
		w.faults[fmt.Sprintf(format, args...)]++
	}
}

func (w *routesWorld) count(route, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally[route+" "+what]++
}

// ids are those of what was made of a kind and is still there.
func (w *routesWorld) ids(kind string) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.made {
		if m.kind() == kind && m.id != "" {
			all = append(all, m.id)
		}
	}
	return all
}

// webhookOf returns the webhook that a replay was asked for; "" where it is not known.
func (w *routesWorld) webhookOf(replay string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.made {
		if m.kind() == "replay" && m.id == replay {
			return path.Base(path.Dir(m.path))
		}
	}
	return ""
}

// shoot sends a shot and judges the answers.
func (w *routesWorld) shoot(ctx context.Context, s shot) {
	within := answeredWithin
	if s.manner == headless {
		within = 2 * time.Second // it need not be a request
	}
	answers, err := s.fire(ctx, w.address, within)
	if ctx.Err() != nil {
		return
	}
	if err != nil && (s.whole() || !isClosed(err) && s.manner != headless) {
		w.fault("%s\n\tis not answered: %v", s, err)
	}
	for _, a := range answers {
		if fault := s.fault(a); fault != "" {
			w.fault("%s\n\t%d %.500q %v: %s", s, a.StatusCode, a.text, a.Header, fault)
		}
		w.mu.Lock()
		w.statuses[a.StatusCode]++
		if s.route >= 0 && s.method == w.maker.routes[s.route].method {
			w.tally[fmt.Sprintf("%s %dxx", w.maker.routes[s.route], a.StatusCode/100)]++
		}
		w.mu.Unlock()
		w.keep(ctx, s, a)
	}
}

// kept is how many things of a kind are left there for other shots. A hold keeps
// others from succeeding.
func kept(kind string) int {
	if kind == "holds" {
		return 3
	}
	return 8
}

// keep remembers what a call made, and deletes the oldest of its kind.
func (w *routesWorld) keep(ctx context.Context, s shot, a answered) {
	if a.StatusCode == http.StatusOK && s.method == http.MethodGet {
		w.keepEvent(s, a)
	}
	if a.StatusCode == http.StatusAccepted && s.method == http.MethodPost {
		w.keepReplay(s, a)
	}
	if a.StatusCode != http.StatusCreated || s.method != http.MethodPut {
		return
	}
	var body struct{ Data struct{ ID, Host string } }
	_ = json.Unmarshal(a.text, &body)
	path, _, _ := strings.Cut(s.target, "?")
	it := made{strings.TrimRight(path, "/"), cmp.Or(body.Data.ID, body.Data.Host)}
	if it.kind() == "portal" {
		return // a link, which ends by itself
	}
	var oldest *made
	w.mu.Lock()
	w.made = append(slices.DeleteFunc(w.made, func(m made) bool { return m.kind() == it.kind() && m.id == it.id }), it)
	isKind := func(m made) bool { return m.kind() == it.kind() }
	count := 0
	for _, m := range w.made {
		if isKind(m) {
			count++
		}
	}
	if count > kept(it.kind()) {
		at := slices.IndexFunc(w.made, isKind)
		oldest = &w.made[at]
		oldest = &made{oldest.path, oldest.id}
		w.made = slices.Delete(w.made, at, at+1)
	}
	w.mu.Unlock()
	if oldest == nil {
		return
	}
	gone := shot{route: -1, method: http.MethodDelete, target: strings.TrimRight(oldest.path+"/"+oldest.id, "/"), header: "X-Auth-Token: " + chaosOperator + "\r\n"}
	if _, err := gone.fire(ctx, w.address, answeredWithin); err != nil && ctx.Err() == nil {
		w.fault("%s\n\tis not answered: %v", gone, err)
	}
}

// keepEvent remembers the newest event of a list: most webhooks of the account have one
// of that id.
func (w *routesWorld) keepEvent(s shot, a answered) {
	path, _, _ := strings.Cut(s.target, "?")
	it := made{path: strings.TrimRight(path, "/")}
	if it.kind() != "events" {
		return
	}
	var body struct {
		Data []struct {
			EventID string `json:"event_id"`
		}
	}
	if _ = json.Unmarshal(a.text, &body); len(body.Data) == 0 {
		return
	}
	it.id = body.Data[0].EventID
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made = append(slices.DeleteFunc(w.made, func(m made) bool { return m.kind() == it.kind() }), it)
}

// keepReplay remembers the last replay, for the call that cancels one.
func (w *routesWorld) keepReplay(s shot, a answered) {
	path, _, _ := strings.Cut(s.target, "?")
	it := made{path: strings.TrimRight(path, "/")}
	var body struct{ Data struct{ ID any } }
	if it.kind() != "replay" || json.Unmarshal(a.text, &body) != nil || body.Data.ID == nil {
		return
	}
	it.id = fmt.Sprint(body.Data.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made = append(slices.DeleteFunc(w.made, func(m made) bool { return m.kind() == it.kind() }), it)
}

// judge tells what was found.
func (w *routesWorld) judge(t testing.TB) {
	t.Helper()
	w.readLog(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	for fault, times := range w.faults {
		t.Errorf("%d×: %s", times, fault)
	}
	clear(w.faults)
}

// lacks reports whether a route, or with -1 any of them, never succeeded.
func (w *routesWorld) lacks(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.maker.routes
	if n >= 0 {
		asked = asked[n : n+1]
	}
	return slices.ContainsFunc(asked, func(r apiRoute) bool { return w.tally[r.String()+" 2xx"] == 0 })
}

// TestRoutes_SurviveWhateverIsSent sends every route of the API requests that are
// made from a seed: no answer may blame the server or lack the documented shape, no
// line of the log may tell of a panic, and another account's requests and deliveries
// go on. With -routes it goes on for as long as that says.
func TestRoutes_SurviveWhateverIsSent(t *testing.T) {
	t.Parallel()
	w := newRoutesWorld(t)
	for _, s := range w.maker.goodOnes() {
		w.shoot(t.Context(), s())
	}
	seed, shots, length := cmp.Or(*seedFlag, routesSeed), uint64(routesShots), routesShort
	if *routesFlag > 0 {
		shots, length = 1<<62, *routesFlag
	}
	t.Logf("seed %d; to repeat: go test ./internal/endtoend -run TestRoutes_Survive -seed %d -routes %s", seed, seed, length)
	until, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	// What waits for a limit of time then is not waited for.
	ended, end := context.WithTimeout(t.Context(), length+time.Second)
	defer end()
	var next atomic.Uint64
	var all sync.WaitGroup
	for range routesSenders {
		all.Go(func() {
			for n := next.Add(1) - 1; n < shots && until.Err() == nil; n = next.Add(1) - 1 {
				w.shoot(ended, w.maker.shot(seed, n))
			}
		})
	}
	all.Wait()
	t.Logf("%d requests, answers by status %v", next.Load(), w.statuses)
	// What was refused each time is asked for again: a resync of a webhook whose other
	// one runs or whose hook has no state, a test of one that a hold keeps. Each round
	// picks other webhooks, lists their events, and begins without a hold.
	late := time.Now().Add(patience)
	for round := uint64(1); w.lacks(-1) && time.Now().Before(late); round++ {
		linger(t.Context(), 100*time.Millisecond)
		for n, r := range w.maker.routes {
			end := path.Base(r.path)
			if r.method == http.MethodDelete && end == "holds" || r.method == http.MethodGet && end == "events" || r.method == http.MethodPost && end == "replay" || w.lacks(n) {
				for _, s := range w.maker.good(round, n) {
					w.shoot(t.Context(), s)
				}
			}
		}
	}
	w.end(t)
	if w.tally["bystander delivered"] == 0 {
		t.Error("nothing of another account was delivered meanwhile")
	}
	for _, r := range w.maker.routes {
		t.Logf("%s: %d succeeded, %d refused", r, w.tally[r.String()+" 2xx"], w.tally[r.String()+" 4xx"])
		if w.tally[r.String()+" 2xx"] == 0 {
			t.Errorf("%s never succeeded: nothing behind its checks was tried", r)
		}
	}
}

// FuzzRoutes_SurviveWhateverIsSent is the same with what Go's fuzzing makes of what
// the seed makes, and of the attacks of the chaos tests.
func FuzzRoutes_SurviveWhateverIsSent(f *testing.F) {
	w := newRoutesWorld(f)
	for n := range w.maker.routes {
		s := w.maker.good(0, n)[0]
		f.Add(s.method, s.target, s.header, s.body, uint8(s.manner))
	}
	for n := range uint64(50) {
		s := w.maker.shot(routesSeed, n)
		f.Add(s.method, s.target, s.header, s.body, uint8(s.manner))
	}
	attacks := &attacker{address: w.address, target: w.maker.target, poisoned: w.maker.token, healthy: w.maker.token, hook: "account"}
	for i, a := range attacks.attacks() {
		if i%8 == 0 && a.send == nil {
			f.Add(a.method, "/v2/accounts/"+strings.ReplaceAll(a.path, poisonName, attackedAccount), "X-Auth-Token: "+a.token+"\r\nContent-Type: application/json\r\n", []byte(a.body), uint8(plainly))
		}
	}
	f.Fuzz(func(t *testing.T, method, target, header string, body []byte, as uint8) {
		if strings.Contains(target, bystanderAccount) {
			t.Skip("it is the bystander's")
		}
		s := shot{route: -1, method: method, target: target, header: header, body: body, manner: manner(as) % manners}
		w.shoot(t.Context(), s)
		w.judge(t)
	})
	w.end(f)
}
