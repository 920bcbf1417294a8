package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// seenRequests is a receiver that keeps what of each request depends on the URL.
func seenRequests(t *testing.T) (url string, seen func() []string) {
	var mu sync.Mutex
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		names := []string{}
		for name := range r.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintln(r.Method, r.RequestURI, r.Host, r.Header["Authorization"], names))
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { got = nil }()
		return got
	}
}

// The request of --forward URL is that of a delivery to URL: its user name and password
// are an Authorization header, and its characters are percent-encoded.
func TestForwarder_RequestsAURLAsADeliveryDoes(t *testing.T) {
	receiver, seen := seenRequests(t)
	port := receiver[strings.LastIndexByte(receiver, ':'):]
	for _, part := range []string{
		"127.0.0.1" + port + "/hook",
		"user:pass@127.0.0.1" + port + "/hook",
		"us%20er:p%40ss@127.0.0.1" + port,
		"token@127.0.0.1" + port + "/",
		"u:pä ss@127.0.0.1" + port + "/",
		"127.0.0.1" + port + `/a b/ä?x=a b&y="ü"`,
		"127.0.0.1" + port + "/a%20b?x=%zz&y=%22#fragment",
		"127.0.0.1" + port + "?x=1&",
		"127.1" + port + "/",
	} {
		for _, verb := range []string{"", "get", "put"} {
			url := "http://" + part
			endpoint := outbox.Endpoint{ID: 1, URL: url, Secrets: []string{hookSecret}, Settings: &outbox.EndpointSettings{HTTPVerb: verb}}
			event := outbox.Event{WebhookID: "evt_1", Type: "update", Schema: "dids", Body: []byte(hookBody)}
			pushed := forwardAndPush(t, url, endpoint, event)
			got := seen()
			if len(got) != 2 || got[0] != got[1] {
				t.Errorf("%q of %s: listen and a delivery request\n%s%+v", verb, url, got, pushed)
			}
		}
	}
}

// A password of --forward is shown nowhere, and the secret of a webhook that listen made
// is shown with --json, too.
func TestListenFrom_ShowsTheSecretAndNoPassword(t *testing.T) {
	for _, inJSON := range []bool{false, true} {
		ctx, stop := context.WithCancel(t.Context())
		api := httptest.NewServer(&feedServer{ends: stop})
		defer api.Close()
		receiver, seen := seenRequests(t)
		var out, warnings bytes.Buffer
		l := newFeedListener(listenOptions{addr: "127.0.0.1:0", status: 200, from: api.URL + "/v2/accounts/7", token: "tok", json: inJSON,
			forward: strings.Replace(receiver, "://", "://user:hunter2@", 1) + "/hook?key=hunter2"}, &out)
		l.warnings = &warnings
		if err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(seen()) != 2 {
			t.Error("not everything was forwarded")
		}
		said, other := &out, &warnings
		if inJSON {
			said, other = other, said
			for line := range strings.Lines(out.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %s", line)
				}
			}
		}
		for _, part := range []string{"; forwarding to http://…@127.0.0.1:", "/hook?…", "its signing secret, for your receiver, is " + hookSecret + "\n"} {
			if !strings.Contains(said.String(), part) {
				t.Errorf("JSON %t: no %q in %q", inJSON, part, said)
			}
		}
		if all := out.String() + warnings.String(); strings.Contains(all, "hunter2") || strings.Contains(other.String(), hookSecret) {
			t.Errorf("JSON %t: %q, %q", inJSON, &out, &warnings)
		}
	}
}

// An event of which the API has no request is not passed where each one counts: the feed
// is read again from the same place until there is one.
func TestListenFrom_PassesNoEventThatIsNotRendered(t *testing.T) {
	for name, test := range map[string]struct{ forward, file bool }{"forward": {true, false}, "cursor file": {false, true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, stop := context.WithCancel(t.Context())
			feed := &feedServer{ends: stop}
			var mu sync.Mutex
			var after []string
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, "/feed") {
					feed.ServeHTTP(w, r)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				after = append(after, r.Header.Get("Last-Event-ID"))
				switch len(after) {
				case 1:
					fmt.Fprintf(w, "id: c0\n\n")
				case 2: // no key
					fmt.Fprintf(w, "id: c1\ndata: {\"event_id\":\"evt_c1\",\"cursor\":\"c1\",\"headers\":{},\"unsent\":\"no key\"}\n\nid: c2\ndata: %s\n\n", feed.event("c2"))
				case 3: // what a later version answers there
					w.WriteHeader(http.StatusServiceUnavailable)
				case 4:
					fmt.Fprintf(w, "id: c1\ndata: %s\n\nid: c2\ndata: %s\n\n", feed.event("c1"), feed.event("c2"))
				default:
					stop()
				}
			}))
			defer api.Close()
			receiver, seen := seenRequests(t)
			place := filepath.Join(t.TempDir(), "place")
			o := listenOptions{addr: "127.0.0.1:0", status: 200, from: api.URL + "/v2/accounts/7/webhooks/made", token: "tok", json: true}
			if test.forward {
				o.forward = receiver
			}
			if test.file {
				o.cursorFile = place
			}
			var out, warnings bytes.Buffer
			l := newFeedListener(o, &out)
			l.warnings = &warnings
			if err := l.run(ctx); err != nil {
				t.Fatal(err)
			}
			if want := []string{"", "c0", "c0", "c0", "c2"}; !slices.Equal(after, want) {
				t.Errorf("read after %q, want %q", after, want)
			}
			if got := len(seen()); test.forward && got != 2 {
				t.Errorf("%d were forwarded", got)
			}
			if kept, _ := os.ReadFile(place); test.file && string(kept) != "c2\n" {
				t.Errorf("kept %q", kept)
			}
			if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 || !strings.Contains(lines[0], "evt_c1") || !strings.Contains(lines[1], "evt_c2") {
				t.Errorf("printed %q", lines)
			}
			if !strings.Contains(warnings.String(), "the feed has no request of evt_c1, and no later event passes it: no key; trying again in ") {
				t.Errorf("warned of %q", &warnings)
			}
		})
	}
}

// forwardAndPush makes the request of an event twice: as listen forwards it, and as a
// delivery.
func forwardAndPush(t *testing.T, url string, endpoint outbox.Endpoint, event outbox.Event) deliver.Result {
	t.Helper()
	destination, err := deliver.NewHTTP(deliver.Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	defer destination.Close()
	sent, err := destination.Sign(endpoint, event, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f, err := newForwarder(url)
	if err != nil {
		t.Fatal(err)
	}
	e := pulledEvent{Method: sent.Method, Query: sent.Query, Body: string(sent.Body), Headers: map[string]string{
		"User-Agent": sent.UserAgent, "webhook-id": event.WebhookID, "webhook-timestamp": sent.Timestamp, "webhook-signature": sent.Signature}}
	if sent.ContentType != "" {
		e.Headers["Content-Type"] = sent.ContentType
	}
	if made := f.hand(t.Context(), &e); !made.taken() {
		t.Fatalf("%s: %+v", url, made)
	}
	return destination.Deliver(t.Context(), endpoint, event)
}
