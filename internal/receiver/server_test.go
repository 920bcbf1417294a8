package receiver

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

var secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

const body = `{"type":"update","schema":"dids","data":"{\"id\":42,\"number\":\"3125551212\"}"}`

func startServer(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// post sends a signed event and returns the status, 0 for none.
func post(t *testing.T, url, id, body string) (int, http.Header, error) {
	t.Helper()
	return postWithin(t, time.Minute, url, id, body)
}

// postWithin waits for the answer no longer than a limit.
func postWithin(t *testing.T, limit time.Duration, url, id, body string) (int, http.Header, error) {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := webhook.Sign(id, now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("webhook-id", id)
	r.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	r.Header.Set("webhook-signature", signature)
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	return response.StatusCode, response.Header, response.Body.Close()
}

func TestServer_RemembersWhatItGot(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	heard := 0
	s := startServer(t, Options{
		Secret:     func(account string) string { return map[string]string{"7": secret}[account] },
		OnDelivery: func(Delivery) { mu.Lock(); heard++; mu.Unlock() },
	})
	for _, url := range []string{s.URL("7"), s.URL("7") + "/v2", s.URL("8")} {
		if status, _, err := post(t, url, "evt_1", body); status != 200 || err != nil {
			t.Fatal(status, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all := s.Deliveries()
	if len(all) != 3 || s.Count() != 3 || heard != 3 {
		t.Fatalf("%d deliveries, %d heard of", len(all), heard)
	}
	first, second, third := all[0], all[1], all[2]
	if first.Account != "7" || first.Schema != "dids" || first.Type != "update" || first.Record != "42" || first.ID != "evt_1" || !first.OK() || first.BadSig != nil {
		t.Errorf("first: %+v", first)
	}
	if second.Path != "v2" || second.Attempt != 2 || second.Body != first.Body {
		t.Errorf("second: %+v", second)
	}
	if third.BadSig == nil || third.Attempt != 1 {
		t.Errorf("third, whose secret is unknown: %+v", third)
	}
}

func TestServer_RefusesAForgedBody(t *testing.T) {
	t.Parallel()
	s := startServer(t, Options{Secret: func(string) string { return "whsec_" + base64.StdEncoding.EncodeToString([]byte("another")) }})
	if _, _, err := post(t, s.URL("7"), "evt_1", body); err != nil {
		t.Fatal(err)
	}
	waitFor(t, s, 1)
	if got := s.Deliveries()[0].BadSig; !errors.Is(got, standardwebhooks.ErrNoMatchingSignature) {
		t.Errorf("signature: %v", got)
	}
}

func TestBehaviour_AnswersAsScripted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		behave Behaviour
		want   []int // status of one request after the other; 0 is none
	}{
		{"healthy", Healthy(), []int{200, 200}},
		{"no content", Status(204), []int{204}},
		{"gone", Gone(), []int{410}},
		{"hanging", Hanging(), []int{0}},
		{"resetting", Resetting(), []int{0, 0}},
		{"slow", Slow(20*time.Millisecond, Healthy()), []int{200}},
		{"too slow", Slow(time.Hour, Healthy()), []int{0}},
		{"down, then up", After(2, Status(503), Healthy()), []int{503, 503, 200}},
		{"a window", During(0, time.Hour, Status(500), Healthy()), []int{500}},
		{"flaky", Flaky(1, 100, Healthy(), Answer{Status: 502}), []int{502, 200}},
		{"flaky never", Flaky(1, 0, Healthy()), []int{200}},
		{"too many", TooMany(3 * time.Second), []int{429}},
		{"redirect", Redirect("http://192.0.2.1/"), []int{302}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, Options{Behave: func(string) Behaviour { return test.behave }})
			for i, want := range test.want {
				began, limit := time.Now(), time.Minute
				if test.name == "hanging" || test.name == "too slow" {
					limit = 300 * time.Millisecond
				}
				status, header, err := postWithin(t, limit, s.URL("7"), "evt_1", body)
				if status != want || (err == nil) != (want != 0) {
					t.Errorf("request %d: status %d, err %v, want %d", i+1, status, err, want)
				}
				switch {
				case want == 429 && header.Get("Retry-After") != "3", want == 302 && header.Get("Location") == "":
					t.Errorf("headers %v", header)
				case test.name == "resetting" && !errors.Is(err, syscall.ECONNRESET):
					t.Errorf("err %v, want a reset", err)
				case test.name == "slow" && time.Since(began) < 20*time.Millisecond:
					t.Error("too quick")
				}
				waitFor(t, s, i+1)
				if got := s.Deliveries()[i].Status; got != want {
					t.Errorf("request %d is remembered with %d", i+1, got)
				}
			}
		})
	}
}

func TestFlaky_FailsItsShareAndTheSameAgain(t *testing.T) {
	failed := 0
	for i := range 10_000 {
		id := "evt_" + strings.Repeat("0", 12) + string(rune('A'+i%26)) + time.Duration(i).String()
		first, again := Flaky(7, 20, Healthy())(Request{ID: id, Attempt: 1}), Flaky(7, 20, Healthy())(Request{ID: id, Attempt: 1})
		if first.Status != again.Status || first.Reset != again.Reset {
			t.Fatalf("%s: %+v and then %+v", id, first, again)
		}
		if first.Status != 0 || first.Reset {
			failed++
		}
	}
	if failed < 1800 || failed > 2200 {
		t.Errorf("%d of 10000 failed, want 20 %%", failed)
	}
}

func TestSwitch_ChangesTheBehaviourOfARunningServer(t *testing.T) {
	t.Parallel()
	sw := NewSwitch(Status(500))
	s := startServer(t, Options{Behave: func(string) Behaviour { return sw.Behave }})
	for _, want := range []int{500, 200} {
		if status, _, _ := post(t, s.URL("7"), "evt_1", body); status != want {
			t.Errorf("status %d, want %d", status, want)
		}
		sw.Set(Healthy())
	}
}

func TestRefusal_RefusesConnections(t *testing.T) {
	t.Parallel()
	refusal, err := Refuse()
	if err != nil {
		t.Fatal(err)
	}
	defer refusal.Close()
	if _, _, err := post(t, refusal.URL("7"), "evt_1", body); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("err %v", err)
	}
}

// waitFor waits until n requests are recorded, which is just after their answer.
func waitFor(t *testing.T, s *Server, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); s.Count() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d requests recorded", s.Count(), n)
		}
	}
}
