package endtoend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// attackEvery is how often the chaos sends the API something hostile.
const attackEvery = 100 * time.Millisecond

const wrongToken = "a wrong token"

const chaosOperator = "the operator of the chaos"

// attack is one hostile request.
type attack struct {
	kind   string
	token  string
	method string
	path   string // below the base of all accounts
	body   string
	header [2]string // one more, or another Content-Type
	// refused says that it must not succeed.
	refused bool
	// unanswered says that the connection may end without an answer.
	unanswered bool
	send       func(context.Context, attack) (int, []byte, error) // nil is a plain request
}

// attacker sends the API what it must refuse, or take without harm, with the
// token of the poisoned account, that of a healthy one, and the operator's.
type attacker struct {
	address  string
	target   string // the poisoned account's receiver
	poisoned string // tokens
	healthy  string
	hook     string // a webhook of the poisoned account
	client   *http.Client

	mu       sync.Mutex
	sent     map[string]int // by kind
	answered map[string]int // by kind
	statuses map[int]int
	faults   []string
}

func newAttacker(address string) *attacker {
	return &attacker{
		address: address, client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		sent: map[string]int{}, answered: map[string]int{}, statuses: map[int]int{},
	}
}

// prepare makes the tokens and the webhook that the attacks are made with.
func (a *attacker) prepare(t *testing.T, target string) {
	t.Helper()
	awaitReady(t, a.address)
	a.target = target
	operator := apiClient{"http://" + a.address + "/v2/accounts/", chaosOperator}
	a.poisoned = data(t, operator.call(t, 201, "PUT", poisonName+"/tokens", `{"data":{"include_subaccounts":true}}`))["token"].(string)
	a.healthy = data(t, operator.call(t, 201, "PUT", accountName(0)+"/tokens", ""))["token"].(string)
	a.hook = data(t, operator.call(t, 201, "PUT", poisonName+"/webhooks", `{"data":{"name":"attacked","uri":"`+target+`","schemas":["dids"]}}`))["id"].(string)
}

// attacks are all of them, in a fixed order.
func (a *attacker) attacks() []attack {
	hooks, one := poisonName+"/webhooks", poisonName+"/webhooks/"+a.hook
	create := func(fields string) string { return `{"data":{"name":"n","uri":"` + a.target + `",` + fields + `}}` }
	named := func(name string) string { return `{"data":{"name":"` + name + `","uri":"` + a.target + `"}}` }
	at := func(uri string) string { return `{"data":{"name":"n","uri":"` + uri + `"}}` }
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	utf16 := "\xff\xfe{\x00\"\x00d\x00a\x00t\x00a\x00\"\x00:\x00{\x00}\x00}\x00"
	var all []attack
	add := func(kind, method, path string, bodies ...string) {
		for _, body := range bodies {
			all = append(all, attack{kind: kind, token: a.poisoned, method: method, path: path, body: body})
		}
	}
	refused := func(kind, method, path string, bodies ...string) {
		before := len(all)
		add(kind, method, path, bodies...)
		for i := range all[before:] {
			all[before+i].refused = true
		}
	}
	refused("half a surrogate", "PUT", hooks, named(`a \ud83d`), named(`\udc00\ud800`), create(`"custom_data":{"greeting":"hi \ud83d"}`),
		create(`"custom_data":{"\ud83d":1}`), create(`"custom_data":{"a":[{"b":"\ud83dx"}]}`), at(`http://127.0.0.1/\ud83d`), create(`"target":{"type":"number","id":"\udfff"}`),
		create(`"hook":"\ud83d"`), create(`"schemas":["\ud83d"]`), `{"data":{"name":"n","uri":"`+a.target+`"},"\ud83d":1}`)
	refused("half a surrogate", "PATCH", one, `{"data":{"custom_data":{"greeting":"hi \ud83d"}}}`, `{"data":{"name":"\ud83d"}}`)
	refused("half a surrogate", "POST", one+"/replay", `{"data":{"event_ids":["\ud83d"]}}`)
	refused("a NUL", "PUT", hooks, named(`a\u0000b`), create(`"custom_data":{"a":"\u0000"}`), create(`"custom_data":{"\u0000":1}`), at(a.target+`\u0000`),
		create(`"type":"\u0000"`), create(`"daily_zone":"\u0000"`), named("a\x00b"))
	refused("a NUL", "POST", one+"/replay", `{"data":{"event_ids":["\u0000"]}}`)
	refused("a NUL", "GET", poisonName+"/webhooks/%00", "")
	refused("a NUL", "DELETE", poisonName+"/webhooks/a%00", "")
	refused("a huge number", "PUT", hooks, create(`"custom_data":{"a":1e400}`), create(`"custom_data":{"a":-1e-99999999999}`), create(`"custom_data":{"a":`+strings.Repeat("9", 200_000)+`}`),
		create(`"retries":1e30`), create(`"retries":-9223372036854775809`), create(`"rate_limit":1e309`), create(`"rate_limit":-0.1`))
	refused("a huge number", "POST", one+"/replay", `{"data":{"since":"2020-01-01T00:00:00Z","rate":1e300}}`, `{"data":{"since":"2020-01-01T00:00:00Z","rate":NaN}}`)
	refused("a huge number", "POST", one+"/secret/rotate", `{"data":{"overlap_seconds":1e18}}`, `{"data":{"overlap_seconds":-1}}`)
	refused("a huge number", "GET", hooks+"?page_size=99999999999999999999", "")
	refused("deep nesting", "PUT", hooks, deep, `{"data":`+deep+`}`, create(`"custom_data":{"a":`+deep+`}`), create(`"custom_data":{"a":`+strings.Repeat(`{"a":`, 20)+"1"+strings.Repeat("}", 20)+`}`),
		strings.Repeat(`{"data":`, 20_000))
	for _, since := range []string{"294277-01-01T00:00:00Z", "infinity", "-4714-11-24T00:00:00Z", "9999-12-31T23:59:59.999999999-23:59", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "1582-10-10T00:00:00Z", "2026-02-30T00:00:00Z", "now"} {
		add("a time out of range", "POST", one+"/replay", `{"data":{"since":"`+since+`","dry_run":true}}`)
	}
	refused("a time out of range", "PUT", hooks, create(`"delivery":"daily","daily_at":"24:60"`), create(`"delivery":"daily","daily_at":"00:00","daily_zone":"Mars/Olympus"`), create(`"delivery":"daily","daily_zone":"../../etc/passwd"`))
	refused("an odd encoding", "PUT", hooks, utf16, named("\xff\xfe"), named("\xed\xa0\xbd"), named("\xc0\x80"))
	for _, header := range [][2]string{{"Content-Type", "application/json; charset=utf-16"}, {"Content-Type", "text/xml"}, {"Content-Type", "\x80"}, {"Content-Encoding", "gzip"}, {"If-Match", "\"\xff\""}, {"Idempotency-Key", strings.Repeat("k", 5000)}, {"Accept", "image/png;q=\xff"}, {"X-Request-Id", "\x80\xff"}} {
		all = append(all, attack{kind: "an odd encoding", token: a.poisoned, method: "PUT", path: hooks, body: "\x1f\x8b\x08\x00poison", header: header, refused: true})
	}
	refused("an odd address", "GET", poisonName+"/webhooks/%ff%fe", "")
	refused("an odd address", "GET", poisonName+"/webhooks/%ed%a0%bd/attempts", "")
	refused("an odd address", "GET", poisonName+"/webhooks/"+strings.Repeat("w", 5000), "")
	refused("an odd address", "GET", "%00/webhooks", "")
	refused("an odd address", "GET", "%ff/webhooks/account/events", "")
	refused("an odd address", "GET", poisonName+"/webhooks/..%2f..%2f"+accountName(0)+"/webhooks", "")
	for _, key := range []string{"%00", "%ff", "x", "99999999999999999999999", "LTE", "ImFcdWQ4M2QiCg", "eyJJRCI6Ilx1MDAwMCJ9", "eyJDcmVhdGVkQXQiOiIwMDAwLTAxLTAxVDAwOjAwOjAwWiIsIklEIjoieCJ9", "WzFlNDAwXQ", strings.Repeat("a", 5000), "OTIyMzM3MjAzNjg1NDc3NTgwNw", "LTkyMjMzNzIwMzY4NTQ3NzU4MDg"} {
		for _, list := range []string{hooks, hooks + "/attempts", one + "/attempts", one + "/events", hooks + "/dead", one + "/replay"} {
			add("an odd page", "GET", list+"?page_size=500&start_key="+key, "")
		}
		all = append(all, attack{kind: "an odd page", token: chaosOperator, method: "GET", path: poisonName + "/tokens?start_key=" + key})
	}
	for _, method := range []string{"TRACE", "PROPFIND", "OPTIONS", "BREW", "POST", "DELETE", "PATCH"} {
		refused("a wrong method", method, hooks, "{}")
	}
	refused("a wrong method", "PUT", one+"/events", "{}")
	refused("a wrong shape", "PUT", hooks, "null", "[]", `"x"`, "42", "", "{", `{"data":null}`, `{"data":[]}`, `{"data":{}}`, `{"data":"x"}`, `{"data":{"name":{},"uri":[]}}`, create(`"custom_data":[]`), create(`"custom_data":"x"`),
		create(`"name":"twice"`), create(`"types":[null]`), create(`"target":{}`), create(`"schemas":{"a":1}`), create(`"retries":"1"`))
	all = append(all, attack{kind: "a wrong shape", token: a.poisoned, method: "PUT", path: hooks, body: strings.Repeat(" ", 300<<10) + "{}", refused: true, unanswered: true}) // it is answered before it is read
	refused("a wrong shape", "POST", one+"/replay", "", "null", `{"data":{"event_ids":[]}}`, `{"data":{"event_ids":null,"since":null}}`, `{"data":{"event_ids":[null]}}`)
	// No more than the guard lets a peer try: it would shut out the others.
	for _, token := range []string{"' OR 1=1 --", strings.Repeat("t", 8000)} {
		all = append(all, attack{kind: wrongToken, token: token, method: "GET", path: hooks, refused: true})
	}
	all = append(all, attack{kind: wrongToken, token: a.poisoned, method: "PUT", path: poisonName + "/tokens", body: "{}", refused: true})
	for _, path := range []string{"/webhooks", "/webhooks/account", "/webhooks/account/secret", "/webhooks/account/events", "/webhooks/dead", "/webhooks/attempts"} {
		refused("somebody else's account", "GET", accountName(1)+path, "")
	}
	refused("somebody else's account", "PUT", accountName(1)+"/webhooks", named("n"))
	refused("somebody else's account", "PATCH", accountName(1)+"/webhooks/account", `{"data":{"enabled":false}}`)
	refused("somebody else's account", "POST", accountName(1)+"/webhooks/account/replay", `{"data":{"since":"2020-01-01T00:00:00Z"}}`)
	refused("somebody else's account", "DELETE", accountName(1)+"/webhooks/account", "")
	for _, uri := range []string{"http://[::ffff:127.0.0.2]:80/", "http://169.254.169.254/latest", "javascript:alert(1)", "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "//127.0.0.1", "http://", "http://xn--a.example\u2028/",
		"http://" + strings.Repeat("a", 5000), "http://127.0.0.1/%zz", "http://[::1", "file:///etc/passwd", "http://0x7f.1/", "http://2130706434/", "http://localhost\\@127.0.0.2/"} {
		text, _ := json.Marshal(uri)
		add("a hostile URL", "PUT", hooks, at(strings.Trim(string(text), `"`)))
	}
	add("a strange setting", "PUT", hooks, named(`😀\ud83d\ude00`), named(strings.Repeat("ж", 64)), create(`"custom_data":{"a":"\\u0000 \\ud83d","b":1e-300,"c":{"d":null},"':;--":"%s$1\ufffe\uffff"}`),
		create(`"hook":"all","include_subaccounts":true`), create(`"schemas":["nothing"],"types":["delete"]`), create(`"http_verb":"get","format":"form","custom_data":{"a b&c":"=\u2028"}`),
		create(`"delivery":"daily","daily_at":"23:59","daily_zone":"Pacific/Kiritimati","hook":"object"`), create(`"rate_limit":1e-300`), create(`"unknown":"\u2028"`))
	add("replays of nothing", "POST", one+"/replay", `{"data":{"event_ids":["evt_unknown"]}}`, `{"data":{"since":"9999-12-31T00:00:00Z"}}`,
		`{"data":{"event_ids":[`+strings.TrimSuffix(strings.Repeat(`"evt_0000000000000001_1",`, 1000), ",")+`]}}`)
	add("an expensive count", "POST", one+"/replay", `{"data":{"since":"1970-01-01T00:00:00Z","dry_run":true}}`)
	add("an expensive count", "POST", poisonName+"/webhooks/account/replay", `{"data":{"since":"1970-01-01T00:00:00Z","dry_run":true,"rate":10000}}`)
	add("an expensive count", "GET", hooks+"/attempts?page_size=500", "")
	add("an expensive count", "GET", one+"/events?page_size=500", "")
	add("a test of a bad receiver", "POST", one+"/test", "")
	// A healthy account's own token harms nobody, the account itself included.
	const own = "/webhooks/account"
	before := len(all)
	refused("a healthy account's token", "PATCH", accountName(0)+own, `{"data":{"custom_data":{"a":"\ud83d"}}}`, `{"data":{"custom_data":{"a":"\u0000"}}}`, `{"data":{"rate_limit":1e309}}`, `{"data":{"retries":-1}}`, `{"data":{"uri":"http://127.0.0.2/"}}`)
	refused("a healthy account's token", "DELETE", accountName(0)+own, "")
	refused("a healthy account's token", "POST", accountName(0)+own+"/replay", `{"data":{"since":"infinity"}}`)
	add("a healthy account's token", "POST", accountName(0)+own+"/replay", `{"data":{"event_ids":["evt_unknown"]}}`, `{"data":{"since":"1970-01-01T00:00:00Z","dry_run":true}}`)
	for i := range all[before:] {
		all[before+i].token = a.healthy
	}
	before = len(all)
	refused("the operator's token", "PUT", poisonName+"/tokens", `{"data":{"name":"\ud83d"}}`, `{"data":{"name":"\u0000"}}`, `{"data":{"include_subaccounts":"yes"}}`, deep)
	refused("the operator's token", "PUT", poisonName+"/webhooks", named(`\ud83d`), create(`"custom_data":{"a":1e400}`))
	refused("the operator's token", "DELETE", poisonName+"/tokens/%00", "")
	refused("the operator's token", "GET", strings.Repeat("9", 3000)+"/webhooks/x", "")
	for i := range all[before:] {
		all[before+i].token = chaosOperator
	}
	for _, send := range []func(context.Context, attack) (int, []byte, error){a.slowly, a.tooShort, a.brokenChunks} {
		all = append(all, attack{kind: "a slow or broken body", token: a.poisoned, method: "PUT", path: hooks, body: named("slow"), unanswered: true, send: send, refused: true})
	}
	return all
}

// run attacks, one request after the other, until ctx ends.
func (a *attacker) run(ctx context.Context) {
	all := a.attacks()
	const step = 37 // kinds take turns
	for n := 0; linger(ctx, attackEvery); n++ {
		within, cancel := context.WithTimeout(ctx, 3*time.Second)
		a.attack(within, all[n*step%len(all)], false)
		cancel()
	}
}

// calm makes every attack once more when nothing else is broken: each must be
// answered, and no answer may blame the server.
func (a *attacker) calm(t *testing.T) {
	t.Helper()
	awaitReady(t, a.address)
	for _, one := range a.attacks() {
		a.attack(t.Context(), one, true)
	}
}

// attack sends one request and looks at the answer. A server that is away or
// overloaded may say so unless all is calm.
func (a *attacker) attack(ctx context.Context, one attack, calm bool) {
	send := a.plainly
	if one.send != nil {
		send = one.send
	}
	status, body, err := send(ctx, one)
	// A busy machine may make the outbox answer too late, but not for as long as that.
	for end := time.Now().Add(patience); calm && status == http.StatusServiceUnavailable && time.Now().Before(end) && linger(ctx, 200*time.Millisecond); {
		status, body, err = send(ctx, one)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent[one.kind]++
	what := fmt.Sprintf("%s: %s %.80s %.120q with %s %q", one.kind, one.method, one.path, one.body, one.header[0], one.header[1])
	if err != nil {
		if calm && !one.unanswered {
			a.faults = append(a.faults, fmt.Sprintf("%s is not answered: %v", what, err))
		}
		return
	}
	a.answered[one.kind]++
	a.statuses[status]++
	switch {
	case status >= 500 && (calm || status != http.StatusServiceUnavailable):
		a.faults = append(a.faults, fmt.Sprintf("%s: %d %.300s", what, status, body))
	case status == http.StatusUnauthorized && one.kind != wrongToken:
		a.faults = append(a.faults, fmt.Sprintf("%s: its token is refused: %.300s", what, body))
	case calm && status == http.StatusTooManyRequests && one.token == chaosOperator:
		a.faults = append(a.faults, fmt.Sprintf("%s: the operator is shut out: %.300s", what, body))
	case one.refused && status < 300:
		a.faults = append(a.faults, fmt.Sprintf("%s is not refused: %d %.300s", what, status, body))
	}
	if status == http.StatusCreated && one.method == http.MethodPut && strings.HasSuffix(one.path, "/webhooks") {
		var made struct{ Data struct{ ID string } }
		if err := json.Unmarshal(body, &made); err != nil {
			a.faults = append(a.faults, fmt.Sprintf("%s: %v", what, err))
		}
		// One that stays for want of an answer is the poisoned account's.
		_, _, _ = a.plainly(ctx, attack{token: a.poisoned, method: http.MethodDelete, path: one.path + "/" + url.PathEscape(made.Data.ID)})
	}
}

func (a *attacker) plainly(ctx context.Context, one attack) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, one.method, "http://"+a.address+"/v2/accounts/"+one.path, strings.NewReader(one.body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("X-Auth-Token", one.token)
	request.Header.Set("Content-Type", "application/json")
	if one.header[0] != "" {
		request.Header.Set(one.header[0], one.header[1])
	}
	response, err := a.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// slowly sends a body a byte at a time and never its end.
func (a *attacker) slowly(ctx context.Context, one attack) (int, []byte, error) {
	return a.rawly(ctx, one, func(conn net.Conn) {
		fmt.Fprintf(conn, "Content-Length: %d\r\n\r\n", len(one.body))
		for _, b := range []byte(one.body)[:10] {
			_, _ = conn.Write([]byte{b})
			linger(ctx, 30*time.Millisecond)
		}
	})
}

// tooShort promises more than it sends.
func (a *attacker) tooShort(ctx context.Context, one attack) (int, []byte, error) {
	return a.rawly(ctx, one, func(conn net.Conn) {
		fmt.Fprintf(conn, "Content-Length: %d\r\n\r\n%s", len(one.body)+100, one.body)
		_ = conn.(*net.TCPConn).CloseWrite()
	})
}

// brokenChunks breaks the rules of a chunked body.
func (a *attacker) brokenChunks(ctx context.Context, one attack) (int, []byte, error) {
	return a.rawly(ctx, one, func(conn net.Conn) {
		fmt.Fprint(conn, "Transfer-Encoding: chunked\r\n\r\n-5\r\n{\"data\r\nffffffffffffffffff\r\n")
	})
}

// rawly writes a request's head and leaves the rest to others.
func (a *attacker) rawly(ctx context.Context, one attack, rest func(net.Conn)) (int, []byte, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", a.address)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(conn, "%s /v2/accounts/%s HTTP/1.1\r\nHost: walhook\r\nX-Auth-Token: %s\r\nContent-Type: application/json\r\n", one.method, one.path, one.token)
	rest(conn)
	answer, err := io.ReadAll(io.LimitReader(conn, 64<<10))
	line, _, found := bytes.Cut(answer, []byte("\r\n"))
	words := strings.Fields(string(line))
	if !found || len(words) < 2 {
		return 0, nil, errors.Join(errors.New("no answer"), err)
	}
	status, err := strconv.Atoi(words[1])
	return status, answer, err
}

// judge wants every kind of attack made and answered, and nothing wrong with
// any answer.
func (a *attacker) judge(t *testing.T, api *actor) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.Sort(a.faults)
	for _, fault := range slices.Compact(a.faults) {
		t.Error(fault)
	}
	for _, one := range a.attacks() {
		if a.answered[one.kind] == 0 && !t.Failed() {
			t.Errorf("no answer to %s", one.kind)
		}
	}
	for _, text := range []string{"panic", "goroutine 1 ["} {
		if n := api.said(t, text); n > 0 {
			t.Errorf("the log of the API says %q %d times", text, n)
		}
	}
	t.Logf("hostile requests by kind %v, answers by status %v", a.sent, a.statuses)
}
