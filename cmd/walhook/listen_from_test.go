package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// feedServer is an API with one webhook, whose stream breaks off after each event.
type feedServer struct {
	mu     sync.Mutex
	calls  []string
	after  []string // Last-Event-ID of each stream
	bodies []string
	ends   func() // called once all events were read
}

func (f *feedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	f.calls, f.bodies = append(f.calls, r.Method+" "+r.URL.RequestURI()), append(f.bodies, string(body))
	if r.Header.Get("X-Auth-Token") != "tok" {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"status":"error","error":"401","message":"missing or invalid token"}`)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "PUT /v2/accounts/7/webhooks":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"data":{"id":"made"},"status":"success"}`)
	case "GET /v2/accounts/7/webhooks/made/secret":
		fmt.Fprintf(w, `{"data":{"secret":%q},"status":"success"}`, hookSecret)
	case "GET /v2/accounts/7/webhooks/made/feed":
		after := r.Header.Get("Last-Event-ID")
		f.after = append(f.after, after)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "retry: 2000\n")
		switch after {
		case "", "c0":
			fmt.Fprintf(w, "id: c0\n\n: keep-alive\n\nid: c1\ndata: %s\n\nid: c2\ndata: {\"cut", f.event("c1"))
		case "c1":
			fmt.Fprintf(w, "id: c1\n\nid: c2\ndata: %s\n\n", f.event("c2"))
		default:
			f.ends()
		}
	case "DELETE /v2/accounts/7/webhooks/made":
		fmt.Fprint(w, `{"data":{},"status":"success"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *feedServer) event(cursor string) string {
	id, at := "evt_"+cursor, time.Now().Unix()
	text, _ := json.Marshal(pulledEvent{EventID: id, Cursor: cursor, Schema: "dids", Type: "update", Method: "POST", Body: hookBody, Headers: map[string]string{
		"Content-Type": "application/json", "webhook-id": id, "webhook-timestamp": fmt.Sprint(at), "webhook-signature": signHook(&testing.T{}, id, at, hookBody),
	}})
	return string(text)
}

// listen --from makes a webhook, reads its feed through cuts, hands each event on as it
// would be pushed, and removes the webhook.
func TestListenFrom_HandsOnWhatIsPulled(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	feed := &feedServer{ends: stop}
	api := httptest.NewServer(feed)
	defer api.Close()
	var got []string
	var mu sync.Mutex
	local := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Header.Get("webhook-id"), " ", r.Header.Get("webhook-signature") != "", " ", string(body) == hookBody))
		w.WriteHeader(http.StatusAccepted)
	}))
	defer local.Close()
	var out bytes.Buffer
	o := listenOptions{addr: "127.0.0.1:0", status: 200, from: api.URL + "/v2/accounts/7", token: "tok", forward: local.URL + "/hook", hook: "records", schemas: "dids,users"}
	if err := listenFrom(ctx, o, &out); err != nil {
		t.Fatal(err)
	}
	if want := []string{"POST /hook evt_c1 true true", "POST /hook evt_c2 true true"}; !slices.Equal(got, want) {
		t.Errorf("handed on: %q, want %q", got, want)
	}
	if want := []string{"", "c1", "c2"}; !slices.Equal(feed.after, want) {
		t.Errorf("resumed after %q, want %q", feed.after, want)
	}
	if last := feed.calls[len(feed.calls)-1]; last != "DELETE /v2/accounts/7/webhooks/made" {
		t.Errorf("the last call: %s", last)
	}
	if made := feed.bodies[0]; !strings.Contains(made, `"delivery":"pull"`) || !strings.Contains(made, `"schemas":["dids","users"]`) {
		t.Errorf("made %s", made)
	}
	for _, part := range []string{"update dids", "signature ok", "evt_c2", "→ 202", "which is removed at the end"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in %s", part, out.String())
		}
	}
}

func TestListenFrom_ARefusalEndsIt(t *testing.T) {
	api := httptest.NewServer(&feedServer{})
	defer api.Close()
	err := listenFrom(t.Context(), listenOptions{addr: "127.0.0.1:0", status: 200, from: api.URL + "/v2/accounts/7", token: "wrong", webhook: "made"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "missing or invalid token") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong token: %v", err)
	}
}

func TestListenFrom_SaysWhatIsWrongWithItsFlags(t *testing.T) {
	t.Setenv("WALHOOK_TOKEN", "")
	for args, want := range map[string]string{
		"--from https://api.example.com/v2/accounts/7":                      "--token: missing",
		"--from https://api.example.com/ --token t":                         "names no account",
		"--from ftp://x/v2/accounts/7 --token t":                            "--from: want the address",
		"--from https://x/v2/accounts/7 --token t --forward localhost:3000": "--forward: want a URL",
		"--from https://x/v2/accounts/7 --token t --webhook w --hook all":   "--hook and --schemas are for the webhook that listen makes",
		"--from https://x/v2/accounts/7 --token t --replay-last 5":          "--replay-last: name the webhook",
		"--from https://x/v2/accounts/7 --token t --cursor-file f":          "--cursor-file: name the webhook",
		"--from https://x/v2/accounts/7/webhooks/a --token t --webhook b":   "--webhook: --from names another one",
		"--token t": "--token needs --from",
	} {
		root := newRootCommand()
		root.SetArgs(append([]string{"listen"}, strings.Fields(args)...))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		err := root.ExecuteContext(t.Context())
		if _, wrong := err.(usageError); !wrong || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// With a cursor file an event counts once the receiver has taken it, and the place is in
// the file.
func TestListenFrom_KeepsItsPlaceBehindWhatIsTaken(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	feed := &feedServer{ends: stop}
	api := httptest.NewServer(feed)
	defer api.Close()
	place := filepath.Join(t.TempDir(), "place")
	var got []string
	local := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kept, _ := os.ReadFile(place)
		got = append(got, r.Header.Get("webhook-id")+" after "+strings.TrimSpace(string(kept)))
		if len(got) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer local.Close()
	o := listenOptions{addr: "127.0.0.1:0", status: 200, from: api.URL + "/v2/accounts/7/webhooks/made", token: "tok", forward: local.URL, cursorFile: place}
	if err := listenFrom(ctx, o, io.Discard); err != nil {
		t.Fatal(err)
	}
	if want := []string{"evt_c1 after c0", "evt_c1 after c0", "evt_c2 after c1"}; !slices.Equal(got, want) {
		t.Errorf("handed on: %q, want %q", got, want)
	}
	if kept, _ := os.ReadFile(place); string(kept) != "c2\n" {
		t.Errorf("kept %q", kept)
	}
	if err := os.WriteFile(place, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := listenFrom(t.Context(), o, io.Discard)
	if _, wrong := err.(usageError); !wrong || !strings.Contains(err.Error(), "holds no cursor; delete it") {
		t.Errorf("an empty file: %v", err)
	}
	o.cursorFile = filepath.Join(place, "below a file")
	if err := listenFrom(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), "--cursor-file: ") {
		t.Errorf("a file that cannot be: %v", err)
	}
}

// A cursor file of another webhook's is named, and what to do with it.
func TestListenFrom_NamesAFileThatHoldsNoPlace(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/feed") {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"message":"after: is not a cursor of this webhook's feed"}`)
			return
		}
		_, _ = io.WriteString(w, `{"data":{"id":"made"}}`)
	}))
	defer api.Close()
	place := filepath.Join(t.TempDir(), "place")
	if err := os.WriteFile(place, []byte("AQAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := listenOptions{addr: "127.0.0.1:0", status: 200, from: api.URL + "/v2/accounts/7", token: "right", webhook: "made", cursorFile: place}
	err := listenFrom(t.Context(), o, io.Discard)
	if err == nil || !strings.Contains(err.Error(), place+" holds no place in this webhook's feed; delete it") || !strings.Contains(err.Error(), "is not a cursor") {
		t.Errorf("got %v", err)
	}
}
