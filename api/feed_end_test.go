package api

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
)

// Who does not read is dropped, and nobody waits for it.
func TestFeed_ASlowReaderHurtsNobody(t *testing.T) {
	w := newWorld(t)
	id := w.webhook(t, adminToken, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nX-Auth-Token: %s\r\nAccept: text/event-stream\r\n\r\n", path, adminToken)
	w.waiting(t, 1)
	quick := w.stream(t, adminToken, path)
	w.waiting(t, 2)
	for n := 1; n <= 40; n++ {
		w.appendLong(t, id, 250_000, n*2, n*2+1)
		quick.ids(t, 2)
	}
	w.waiting(t, 1)
	w.wantEnded(t, endedSlow)
}

// wantEnded waits until so many streams have ended as there are reasons, and wants these.
func (w *world) wantEnded(t *testing.T, reasons ...string) {
	t.Helper()
	counts := func() (counts map[string]int, sum int) {
		counts = map[string]int{}
		for _, reason := range []string{endedDone, endedSlow, endedRefused, endedFailed, endedStopped} {
			if n := int(testutil.ToFloat64(w.feeds.ended.WithLabelValues(reason))); n > 0 {
				counts[reason] = n
				sum += n
			}
		}
		return counts, sum
	}
	want := map[string]int{}
	for _, reason := range reasons {
		want[reason]++
	}
	for patience := time.Now().Add(90 * time.Second); ; time.Sleep(time.Millisecond) {
		if got, sum := counts(); sum >= len(reasons) || time.Now().After(patience) {
			if !maps.Equal(got, want) {
				t.Errorf("streams ended as %v, want %v", got, want)
			}
			return
		}
	}
}

// A stream in front of which the outbox fails does not end as one that may read no more, and
// the log says what failed.
func TestFeed_AStreamEndsWhereTheOutboxFails(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	var ended []string
	for what, fail := range map[string]func() (mend func()){
		"an error": func() func() {
			w.exec(t, "ALTER TABLE walhook.hold RENAME TO hidden")
			return func() { w.exec(t, "ALTER TABLE walhook.hidden RENAME TO hold") }
		},
		"a timeout": func() func() {
			tx, err := w.db.Connect(t).Begin(t.Context())
			if err == nil {
				_, err = tx.Exec(t.Context(), "LOCK TABLE walhook.hold IN ACCESS EXCLUSIVE MODE")
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() { _ = tx.Rollback(t.Context()) }
		},
	} {
		s := w.stream(t, token, path)
		w.waiting(t, 1)
		mend := fail()
		w.exec(t, "UPDATE walhook.endpoint SET revision = revision + 1 WHERE webhook = $1", id) // it looks again
		if e, err := s.next(); err == nil {
			t.Errorf("%s: event %v", what, e)
		}
		mend()
		ended = append(ended, endedFailed)
		w.wantEnded(t, ended...)
	}
	if n := w.logs.FilterMessage("request failed").FilterLevelExact(zap.ErrorLevel).Len(); n != len(ended) {
		t.Errorf("%d lines in the logs, want %d", n, len(ended))
	}
	s := w.stream(t, token, path)
	w.append(t, id, 1)
	s.ids(t, 1)
	s.response.Body.Close()
	w.wantEnded(t, append(ended, endedDone)...)
}

// A stream whose account gets no turn asks for one about once a second, and misses nothing.
func TestFeed_AStreamWithoutATurnComesBack(t *testing.T) {
	const seconds = 1e6
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	s := w.stream(t, token, "/v2/accounts/7/webhooks/"+id+"/feed")
	w.waiting(t, 1)
	w.api.limits.charge("7", seconds)
	w.appendLong(t, id, 600_000, 1, 2, 3) // more than the tail keeps for a reader: it reads the log
	began := time.Now()
	for n := 0; n < 6; {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, ": waiting for a turn") {
			n++
		}
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("six times without a turn in %v, want about a second between them", took)
	}
	w.api.limits.charge("7", -seconds)
	if ids := s.ids(t, 3); fmt.Sprint(ids) != "[1 2 3]" {
		t.Errorf("with a turn again: %v", ids)
	}
}

// A stream ends with its token, its webhook, an operator's word, and the process.
func TestFeed_AStreamEndsWhenItMayReadNoMore(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	begin := func(webhook string) *streamReader {
		return w.stream(t, token, "/v2/accounts/7/webhooks/"+webhook+"/feed")
	}
	ends := func(what string, s *streamReader) {
		t.Helper()
		if e, err := s.next(); err == nil {
			t.Errorf("%s: event %v", what, e)
		} else if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", what, err)
		}
	}
	deleted, stays := w.webhook(t, token, "7", ""), w.webhook(t, token, "7", "")
	disabled := "/v2/accounts/9/webhooks/" + w.webhook(t, adminToken, "9", "")
	ofDeleted, ofToken, ofDisabled := begin(deleted), begin(stays), w.stream(t, w.token(t, "9", ""), disabled+"/feed")
	w.waiting(t, 3)
	w.want(t, 200, token, "DELETE", "/v2/accounts/7/webhooks/"+deleted, "")
	ends("the webhook was deleted", ofDeleted)
	w.want(t, 200, adminToken, "PATCH", disabled, `{"data":{"enabled":false}}`)
	ends("an operator disabled it", ofDisabled)
	w.want(t, 409, adminToken, "GET", disabled+"/feed", "")
	w.waiting(t, 1)
	tokenID := w.want(t, 200, adminToken, "GET", "/v2/accounts/7/tokens", "").list(t)[0]["id"].(string)
	w.want(t, 200, adminToken, "DELETE", "/v2/accounts/7/tokens/"+tokenID, "")
	ends("the token was deleted", ofToken)
	w.waiting(t, 0)

	ofProcess := w.stream(t, adminToken, "/v2/accounts/7/webhooks/"+stays+"/feed")
	polled := make(chan reply, 1)
	go func() { polled <- w.call(t, adminToken, "GET", "/v2/accounts/7/webhooks/"+stays+"/feed?wait=60", "") }()
	w.waiting(t, 2)
	w.stop()
	ends("the process stops", ofProcess)
	w.wantEnded(t, endedRefused, endedRefused, endedRefused, endedStopped)
	if r := <-polled; r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("a poll when the process stops: %d %s", r.status, r.text)
	}
}

// A client that left is not one that does not read.
func TestFeed_AFailedWriteIsOfAClientThatLeftUnlessItIsLate(t *testing.T) {
	for want, err := range map[string]error{
		endedSlow: fmt.Errorf("flush: %w", &net.OpError{Op: "write", Err: os.ErrDeadlineExceeded}),
		endedDone: fmt.Errorf("flush: %w", &net.OpError{Op: "write", Err: syscall.EPIPE}),
	} {
		if got := endOf(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}
