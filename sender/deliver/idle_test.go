package deliver

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestAttempt_AnIdleConnectionClosedAsTheNextPostStartsIsNeverTwoRequests races
// the receiver's close against the next attempt, again and again.
func TestAttempt_AnIdleConnectionClosedAsTheNextPostStartsIsNeverTwoRequests(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		const attempts = 300
		for _, secure := range []bool{false, true} {
			t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
				t.Parallel()
				var connections atomic.Int32
				var mu sync.Mutex
				requests := map[string]int{} // by webhook-id; guarded by mu
				receive := func(conn net.Conn, r *bufio.Reader) {
					n := connections.Add(1)
					for {
						request, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						_, _ = io.Copy(io.Discard, request.Body)
						mu.Lock()
						requests[request.Header.Get("webhook-id")]++
						mu.Unlock()
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
						time.AfterFunc(time.Duration(n%8)*50*time.Microsecond, func() { conn.Close() })
					}
				}
				c, url := client.http(t), ""
				if secure {
					ca := newAuthority(t)
					url = secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}}, func(conn *tls.Conn) { receive(conn, bufio.NewReader(conn)) })
					ca.trust(c)
				} else {
					url = rawReceiver(t, receive)
				}
				delivered := int32(0)
				for i := range attempts {
					event := testEvent
					event.WebhookID = fmt.Sprintf("evt_%d", i) // a request may be counted after its attempt failed
					a := c.deliver(t.Context(), testEndpoint(url), event, time.Now())
					switch {
					case a.status == 200:
						delivered++
					case a.failure != failClosed && a.failure != failReset:
						t.Errorf("%+v", a)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				for id, n := range requests {
					if n > 1 {
						t.Errorf("%d requests in the one attempt of %s", n, id)
					}
				}
				if connections.Load() < 10 || delivered < attempts/2 {
					t.Errorf("%d connections, %d of %d delivered: not what the test is about", connections.Load(), delivered, attempts)
				}
				t.Logf("%d connections, %d requests, %d delivered", connections.Load(), len(requests), delivered)
			})
		}
	})
}

func TestAttempt_NothingIsWrittenOnceTheLeaseIsOver(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		var requests atomic.Int32
		plain := rawReceiver(t, func(_ net.Conn, r *bufio.Reader) {
			if _, err := r.ReadByte(); err == nil {
				requests.Add(1)
			}
		})
		overTLS := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}}, func(conn *tls.Conn) {
			if n, _ := conn.Read(make([]byte, 1)); n > 0 {
				requests.Add(1)
			}
		})
		h2 := &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) { c.frame(frameHeaders, flagEndHeaders|flagEndStream, s, 0x88) }}
		overHTTP2 := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, h2.serve)
		for name, url := range map[string]string{"plain": plain, "TLS": overTLS, "HTTP/2": overHTTP2} {
			t.Run(name, func(t *testing.T) {
				c := ca.trust(client.http(t))
				c.config.MayBegin = func() bool { return false } // it has ended while the connection was made
				a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
				if a.failure != failLease {
					t.Errorf("%+v, want failure %q", a, failLease)
				}
			})
		}
		if n := requests.Load() + h2.requests.Load(); n != 0 {
			t.Errorf("%d requests began", n)
		}
	})
}
