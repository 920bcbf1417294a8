package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// hookWorld is a walhook with its API, a source, and a receiver that keeps what
// it gets as it came.
type hookWorld struct {
	db       *pgtest.DB
	api      apiClient
	process  *childProcess
	server   *httptest.Server
	arrivals chan hookArrival
	secrets  map[string]string // by path
	since    time.Time
	expected int
}

type hookArrival struct {
	method, uri string
	header      http.Header
	body        []byte
}

func newHookWorld(t *testing.T) *hookWorld {
	t.Helper()
	w := &hookWorld{db: pgtest.Database(t), arrivals: make(chan hookArrival, 1000), secrets: map[string]string{}, since: time.Now()}
	w.server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.arrivals <- hookArrival{r.Method, r.RequestURI, r.Header, body}
	}))
	t.Cleanup(w.server.Close)
	w.db.Exec(t, carrier.Tables)
	w.db.Exec(t, `INSERT INTO users (id, username) SELECT id, id::text FROM generate_series(200, 299) id;
		INSERT INTO users (id, username, reseller_id) VALUES (101, 'child', `+strconv.Itoa(hookAccount(subaccountsCase()))+`), (103, 'grandchild', 101)`)
	address := loopback.Address(t)
	slot := "hooks_" + w.db.Name
	w.process = startChild(t, "run", "--source", w.db.URL, "--slot", slot, "--setup", "--listen", address, "--allow-cidr", "127.0.0.0/8", "--admin-token", "the operator of the test")
	awaitReady(t, address)
	w.api = apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}
	return w
}

// hookAccount is the account of a case.
func hookAccount(i int) int { return 200 + i }

// subaccountsCase is the case whose account has others below it.
func subaccountsCase() int {
	return len(pbxCases) + len(customCases) + slices.IndexFunc(kazooCases, func(c hookCase) bool { return c.from != "" })
}

// subscribe makes the webhooks. The URL has a query of its own where the body
// goes into the query.
func (w *hookWorld) subscribe(t *testing.T, cases []hookCase) {
	t.Helper()
	for i, c := range cases {
		account := strconv.Itoa(hookAccount(i))
		uri := w.server.URL + "/" + c.golden
		if strings.Contains(c.webhook, `"get"`) {
			uri += "?zap=1#top"
		}
		made := data(t, w.api.call(t, 201, "PUT", account+"/webhooks", `{"data":{"name":"n","uri":"`+uri+`",`+c.webhook+`}}`))
		w.secrets["/"+c.golden] = data(t, w.api.call(t, 200, "GET", account+"/webhooks/"+made["id"].(string)+"/secret", ""))["secret"].(string)
		for _, deaf := range c.deaf {
			w.api.call(t, 201, "PUT", account+"/webhooks", `{"data":{"name":"deaf","uri":"`+w.server.URL+`/deaf/`+c.golden+`",`+deaf+`}}`)
		}
	}
}

// happen has the source commit what happens, each in a transaction of its own.
func (w *hookWorld) happen(t *testing.T, cases []hookCase) {
	t.Helper()
	for i, c := range cases {
		account := strconv.Itoa(hookAccount(i))
		if c.from != "" {
			account = c.from
		}
		for _, sql := range c.happens {
			w.db.Exec(t, strings.ReplaceAll(sql, "{account}", account))
		}
	}
}

// wantGolden compares what arrives with the golden files, byte for byte. In them
// ACCOUNT stands for the account's id and NOW for the moment of the commit.
func (w *hookWorld) wantGolden(t *testing.T, cases []hookCase) {
	t.Helper()
	want := map[string][]string{}
	for i, c := range cases {
		text, err := os.ReadFile("testdata/hooks/" + c.golden + ".http")
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.ReplaceAll(strings.TrimSuffix(string(text), "\n"), "ACCOUNT", strconv.Itoa(hookAccount(i))))
		want["/"+c.golden] = strings.Split(string(text), "\n###\n")
		w.expected += len(want["/"+c.golden])
	}
	got := map[string][]string{}
	timeout := time.After(patience)
	for n := 0; n < w.expected; n++ {
		select {
		case a := <-w.arrivals:
			path, request := w.read(t, a)
			got[path] = append(got[path], request)
		case <-timeout:
			t.Errorf("only %d of %d arrived", n, w.expected)
			n = w.expected
		}
	}
	for _, c := range cases {
		path := "/" + c.golden
		if c.anyhow {
			slices.Sort(got[path])
			slices.Sort(want[path])
		}
		if !slices.Equal(got[path], want[path]) {
			t.Errorf("%s\n got %q\nwant %q", path, got[path], want[path])
		}
		delete(got, path)
	}
	for path, requests := range got {
		t.Errorf("%s arrived at %s", requests, path)
	}
}

var gregorian = regexp.MustCompile(`"timestamp":(6[0-9]{10})`)

// read checks the signature and writes a request as golden files have them.
func (w *hookWorld) read(t *testing.T, a hookArrival) (path, request string) {
	t.Helper()
	path, query, _ := strings.Cut(a.uri, "?")
	signed := a.body
	if a.method == http.MethodGet {
		signed = []byte(strings.TrimPrefix(query, "zap=1&"))
	}
	if secret := w.secrets[path]; secret != "" {
		verify(t, secret, a.header, signed)
	}
	body := gregorian.ReplaceAllStringFunc(string(a.body), func(member string) string {
		seconds, _ := strconv.ParseInt(strings.TrimPrefix(member, `"timestamp":`), 10, 64)
		at := time.Unix(seconds-62167219200, 0)
		if at.Before(w.since.Truncate(time.Second)) || at.After(time.Now()) {
			return member
		}
		return `"timestamp":NOW`
	})
	request = a.method + " " + a.uri + "\n"
	if kind := a.header.Get("Content-Type"); kind != "" {
		request += "Content-Type: " + kind + "\n"
	}
	return path, request + "\n" + body
}

// refused has bad events committed. Each is listed with its reason, and counted.
func (w *hookWorld) refused(t *testing.T) {
	t.Helper()
	reasons := map[string]int{}
	for _, bad := range badEvents {
		w.db.Exec(t, bad.sql)
		reasons[bad.reason]++
	}
	conn := w.db.Connect(t)
	for reason, n := range reasons {
		counter := fmt.Sprintf("walhook_changes_skipped_total{reason=%q} %d\n", reason, n)
		eventually(t, 20*time.Second, func() bool { return strings.Contains(w.metrics(t), counter) })
		var listed int
		const sql = "SELECT count(*) FROM walhook.unrouted WHERE reason = $1"
		if err := conn.QueryRow(t.Context(), sql, reason).Scan(&listed); err != nil || listed != n {
			t.Errorf("%d events are listed as %s, want %d: %v", listed, reason, n, err)
		}
	}
}

func (w *hookWorld) metrics(t *testing.T) string {
	t.Helper()
	response, err := http.Get(strings.TrimSuffix(w.api.base, "/v2/accounts/") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantNothingElse asks the log, once everything has been routed: it holds an
// event for each arrival that was wanted and no other.
func (w *hookWorld) wantNothingElse(t *testing.T) {
	t.Helper()
	const sql = `SELECT p.url || ' ' || convert_from(e.body, 'UTF8') FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`
	rows, err := w.db.Connect(t).Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	logged, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(logged) != w.expected || len(w.arrivals) > 0 {
		t.Errorf("the log holds %d events, want %d: %v\n\t%s", len(logged), w.expected, err, strings.Join(logged, "\n\t"))
	}
}
