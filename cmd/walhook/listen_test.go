package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

const hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// signHook is the specification's own formula, apart from the library that
// listen verifies with.
func signHook(t *testing.T, id string, at int64, body string) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(hookSecret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", id, at, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func postHook(t *testing.T, url, body string, header map[string]string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

const hookBody = `{"type":"update","schema":"dids","data":"{\"id\":42,\"user_id\":7,\"number\":\"3125551212\",\"rate\":1.50,\"state\":null}"}`

func TestListen_SaysWhetherASignatureIsGood(t *testing.T) {
	const id = "evt_00000000019A4B28_1"
	now := time.Now().Unix()
	signed := func(at int64, signature string) map[string]string {
		return map[string]string{"webhook-id": id, "webhook-timestamp": fmt.Sprint(at), "webhook-signature": signature}
	}
	good := signHook(t, id, now, hookBody)
	for name, test := range map[string]struct {
		secret, body string
		header       map[string]string
		want         string
	}{
		"good":                {hookSecret, hookBody, signed(now, good), "signature ok"},
		"while it is rotated": {hookSecret, hookBody, signed(now, "v1,b3RoZXI= "+good), "signature ok"},
		"changed body":        {hookSecret, strings.Replace(hookBody, "42", "43", 1), signed(now, good), "signature BAD: signed with another secret"},
		"other version":       {hookSecret, hookBody, signed(now, "v2"+good[2:]), "signature BAD: signed with another secret"},
		"old":                 {hookSecret, hookBody, signed(now-360, signHook(t, id, now-360, hookBody)), "signature BAD: the timestamp is more than five minutes old"},
		"ahead":               {hookSecret, hookBody, signed(now+360, signHook(t, id, now+360, hookBody)), "signature BAD: the timestamp is more than five minutes ahead"},
		"garbled time stamp":  {hookSecret, hookBody, map[string]string{"webhook-id": id, "webhook-timestamp": "soon", "webhook-signature": good}, "signature BAD: malformed"},
		"unsigned":            {hookSecret, hookBody, nil, "signature BAD: webhook-id, webhook-timestamp or webhook-signature is missing"},
		"no secret":           {"", hookBody, signed(now, good), "signature not checked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			printer, err := newHookPrinter(listenOptions{addr: ":0", secret: test.secret, status: http.StatusAccepted}, &out)
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(printer)
			defer server.Close()
			if status := postHook(t, server.URL, test.body, test.header); status != http.StatusAccepted {
				t.Errorf("status %d", status)
			}
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("no %q in:\n%s", test.want, &out)
			}
		})
	}
}

func TestListen_PrintsForAPerson(t *testing.T) {
	var out bytes.Buffer
	printer, err := newHookPrinter(listenOptions{addr: ":0", status: 200}, &out)
	if err != nil {
		t.Fatal(err)
	}
	printer.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC) }
	server := httptest.NewServer(printer)
	defer server.Close()
	postHook(t, server.URL, hookBody, map[string]string{"webhook-id": "evt_1"})
	postHook(t, server.URL+"/hooks", `{"type":"update","schema":"sms_enablement","status":"error","verbose":"already provisioned"}`,
		map[string]string{"webhook-id": "evt_2"})
	postHook(t, server.URL, hookBody, map[string]string{"webhook-id": "evt_1"})
	postHook(t, server.URL, "\x1b[31mhello", nil)
	postHook(t, server.URL, `{"type":"insert","schema":"did_notes","data":"{\"id\":1,\"note\":\"`+"\u202e"+strings.Repeat("x", 100)+`\"}"}`, nil)
	want := `03:04:05.006  update dids  signature not checked  evt_1
    id=42  user_id=7  number="3125551212"  rate=1.50  state=null
03:04:05.006  update sms_enablement  signature not checked  evt_2  POST /hooks
    status="error"  verbose="already provisioned"
03:04:05.006  update dids  signature not checked  evt_1  (again)
    id=42  user_id=7  number="3125551212"  rate=1.50  state=null
03:04:05.006  not an envelope  signature not checked
    \u001b[31mhello
03:04:05.006  insert did_notes  signature not checked
    id=1  note="\u202e` + strings.Repeat("x", 58) + `…"
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestListen_RefusesABodyThatIsTooLarge(t *testing.T) {
	var out bytes.Buffer
	printer, err := newHookPrinter(listenOptions{addr: ":0", status: 200}, &out)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	body := io.LimitReader(zeros{}, maxHookBytes+1)
	printer.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body))
	if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(out.String(), "unreadable body") {
		t.Errorf("status %d, printed %q", w.Code, &out)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestListen_ServesUntilItIsToldToStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	root := newRootCommand()
	root.SetArgs([]string{"listen", "--addr", "127.0.0.1:0", "--secret", hookSecret, "--status", "503"})
	root.SetOut(write)
	done := make(chan error, 1)
	go func() { done <- errors.Join(root.ExecuteContext(ctx), write.Close()) }()

	lines := bufio.NewScanner(read)
	lines.Scan()
	url := regexp.MustCompile(`http://[0-9.:]+`).FindString(lines.Text())
	if url == "" || strings.Contains(lines.Text(), hookSecret) {
		t.Fatalf("first line: %s", lines.Text())
	}
	printed := make(chan string, 1)
	go func() {
		rest, _ := io.ReadAll(read)
		printed <- string(rest)
	}()
	now := time.Now().Unix()
	status := postHook(t, url, hookBody, map[string]string{
		"webhook-id": "evt_1", "webhook-timestamp": fmt.Sprint(now), "webhook-signature": signHook(t, "evt_1", now, hookBody)})
	cancel()
	if err := <-done; err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("status %d, error %v", status, err)
	}
	if text := <-printed; !strings.Contains(text, "update dids  signature ok  evt_1") {
		t.Errorf("printed %q", text)
	}
}

func TestListen_RefusesWrongFlags(t *testing.T) {
	for name, args := range map[string][]string{
		"status":  {"--status", "99"},
		"secret":  {"--secret", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
		"address": {"--addr", "9090"},
		"unknown": {"--colour"},
		"extra":   {"9090"},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRootCommand()
			root.SetArgs(append([]string{"listen"}, args...))
			root.SetOut(io.Discard)
			err := root.ExecuteContext(t.Context())
			if exitStatus(t.Context(), err) != exitUsage || strings.Contains(err.Error(), "MfKQ9r8") {
				t.Errorf("got %v", err)
			}
		})
	}
}
