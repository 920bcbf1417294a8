package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// However a path is written, the answer is one that a client of the API can read:
// no redirect in HTML, and no text.
func TestInput_EveryPathIsAnsweredInTheDocumentedShape(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	w.webhook(t, token, "7", "")
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "//v2/accounts/7/webhooks", 200}, {"GET", "/v2//accounts///7/webhooks//", 200}, {"PUT", "//v2/accounts/7/webhooks", 400},
		{"GET", path + "/account/../../webhooks", 404}, {"GET", "/v2/./accounts/7/webhooks", 404}, {"DELETE", path + "/x/..", 404}, {"POST", "/v2/accounts/../accounts/7/webhooks", 404},
		{"GET", "/v2/accounts/%2f%2f/webhooks", 404}, {"GET", path + "/%2e%2e", 404}, {"GET", "/v2/accounts//webhooks", 404},
		{"GET", "", 200}, {"GET", "//", 200}, {"GET", "*", 404}, {"GET", "//healthz/", 200}, {"POST", "/healthz", 405}, {"DELETE", "/metrics", 405}, {"PROPFIND", "/readyz", 405}, {"HEAD", "/readyz", 200},
	} {
		target := c.target
		if target != "*" {
			target = w.url + target
		}
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: walhook\r\nX-Auth-Token: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", c.method, target, token)
		response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: c.method})
		if err != nil {
			t.Fatalf("%s %s: %v", c.method, c.target, err)
		}
		text, err := io.ReadAll(response.Body)
		conn.Close()
		var shape errorBody
		if response.StatusCode >= 300 {
			err = errors.Join(err, json.Unmarshal(text, &shape))
		}
		switch {
		case err != nil || response.StatusCode != c.status:
			t.Errorf("%s %s: %d %q, want %d (%v)", c.method, c.target, response.StatusCode, text, c.status, err)
		case c.status >= 300 && (shape.Error != fmt.Sprint(c.status) || shape.Message == "" || shape.RequestID != response.Header.Get("X-Request-Id")):
			t.Errorf("%s %s: %s", c.method, c.target, text)
		case c.status == 405 && response.Header.Get("Allow") == "":
			t.Errorf("%s %s: no Allow", c.method, c.target)
		}
	}
}

// A body that does not come is a 408, in the header as in the body.
func TestInput_ABodyThatIsLateIsNamed(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	_, handler, err := newSubscriptions(w.api.cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ReadTimeout = 200 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /v2/accounts/7/webhooks HTTP/1.1\r\nHost: walhook\r\nX-Auth-Token: %s\r\nContent-Length: 100\r\n\r\n{", token)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	var shape errorBody
	if err := json.NewDecoder(response.Body).Decode(&shape); err != nil || response.StatusCode != 408 || shape.Error != "408" || !strings.Contains(shape.Message, "in time") {
		t.Errorf("%d %+v %v", response.StatusCode, shape, err)
	}
}

// unread is a client that is gone when it is answered.
type unread struct{ *httptest.ResponseRecorder }

func (unread) Write([]byte) (int, error) { return 0, net.ErrClosed }

// A client that is gone, or does not read its answer, is no fault of ours.
func TestAnswer_AClientThatIsGoneIsNoPanic(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	core, logs := observer.New(zap.InfoLevel)
	_, handler, err := newSubscriptions(w.api.cfg, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest("GET", "/v2/accounts/7/webhooks", nil)
	request.Header.Set("X-Auth-Token", token)
	handler.ServeHTTP(unread{httptest.NewRecorder()}, request)
	for _, line := range logs.FilterMessage("panic in request handler").All() {
		t.Error(line.ContextMap()["panic"])
	}
}
