package deliver

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// maxTaken is how many bytes an attempt may read: a header, the beginning of a body, and
// the transport's buffers.
const maxTaken = maxAnswerHeader + maxAnswerBody + 64<<10

// countedConn counts what is read.
type countedConn struct {
	net.Conn
	taken *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.taken.Add(int64(n))
	return n, err
}

// countTaken counts the bytes that the destination reads.
func countTaken(c *HTTP) *atomic.Int64 {
	taken := &atomic.Int64{}
	dial := c.dialer.dial
	c.dialer.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return countedConn{conn, taken}, nil
	}
	return taken
}

// answers reads a request and sends a text.
func answers(text string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			io.WriteString(conn, text)
		}
	}
}

// answersThenDrips sends a text and then drop for ever.
func answersThenDrips(text, drop string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			io.WriteString(conn, text)
			drip(conn, drop)
		}
	}
}

// resets ends a connection with RST instead of FIN.
func resets(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0) }

type misbehaviour struct {
	name    string
	receive func(net.Conn, *bufio.Reader)
	status  int
	failure failure
	detail  string // part of it
}

func (m misbehaviour) test(t *testing.T, client clientKind, about ...limits) {
	t.Parallel()
	if m.failure == failTimeoutHeader {
		about = append(about, shortHeader)
	}
	url := rawReceiver(t, m.receive)
	var a answer
	var taken *atomic.Int64
	atMost(t, tooLong, func() {
		c := client.http(t, about...)
		taken = countTaken(c)
		a = c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
	})
	if a.status != m.status || a.failure != m.failure {
		t.Errorf("status %d, failure %q (%s); want %d, %q", a.status, a.failure, a.detail, m.status, m.failure)
	}
	if n := taken.Load(); n > maxTaken {
		t.Errorf("took %d bytes, want at most %d", n, maxTaken)
	}
	if strings.Contains(a.detail, "boom") {
		t.Errorf("a body was inflated: %q", a.detail)
	}
	if len(a.detail) > maxDetail+4 || !strings.Contains(a.detail, m.detail) || strings.Contains(a.detail, "\x00") {
		t.Errorf("detail %q, want %q in it", a.detail, m.detail)
	}
}

func TestAttempt_ReceiversThatNeverCome(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for _, m := range []misbehaviour{
			{"accepts and never answers", func(_ net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }, 0, failTimeoutHeader, "awaiting the answer"},
			{"accepts and never reads", func(conn net.Conn, _ *bufio.Reader) { <-t.Context().Done() }, 0, failTimeoutHeader, "awaiting the answer"},
			{"half a status line", answersThenDrips("HTTP/1.1 20", ""), 0, failTimeoutHeader, "reading the answer"},
			{"half a status line, dripped", answersThenDrips("HTTP/1.1 20", "0"), 0, failTimeoutHeader, "reading the answer"},
			{"not HTTP", answers("220 mail.example ESMTP\r\n"), 0, failMalformed, "reading the answer"},
			{"binary", answers(strings.Repeat("\x00\xff\n", 1000)), 0, failMalformed, "reading the answer"},
			{"closes amid the status line", answers("HTTP/1.1 2"), 0, failMalformed, "reading the answer"},
			{"an interim answer and no more", answersThenDrips("HTTP/1.1 100 Continue\r\n\r\n", ""), 0, failTimeoutHeader, ""},
			{"endless interim answers", answersThenDrips("", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 1000)), 0, failMalformed, ""},
			{"interim answers, dripped", answersThenDrips("", "HTTP/1.1 103 Early Hints\r\n\r\n"), 0, failTimeoutHeader, ""},
			{"a status out of range", answers("HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"), 999, "", "HTTP 999"},
		} {
			t.Run(m.name, func(t *testing.T) { m.test(t, client) })
		}
	})
}

func TestAttempt_TheStatusLineDecidesAndNothingAfterItUndoesIt(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		var bomb bytes.Buffer
		zipped := gzip.NewWriter(&bomb)
		zipped.Write(bytes.Repeat([]byte("boom"), 16<<20))
		zipped.Close()
		const fine = "HTTP/1.1 200 OK\r\n"
		for _, m := range []misbehaviour{ // which take as long as a header may
			{"drips its header", answersThenDrips(fine, "X: y\r\n"), 200, "", "an endless header"},
			{"drips one line of header", answersThenDrips(fine+"X: ", "y"), 200, "", "an endless header"},
			{"failing and no end of header", answersThenDrips("HTTP/1.1 500 No\r\n", "X: y\r\n"), 500, "", "HTTP 500, and an endless header"},
		} {
			t.Run(m.name, func(t *testing.T) { m.test(t, client, shortHeader) })
		}
		for _, m := range []misbehaviour{
			{"a megabyte of header", answers(fine + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), 200, "", "an endless header"},
			{"a megabyte of headers", answers(fine + strings.Repeat("X: y\r\n", 1<<18) + "\r\n"), 200, "", "an endless header"},
			{"a malformed header", answers(fine + "no colon\r\n\r\n"), 200, "", "an endless header"},
			{"closes amid the header", answers(fine + "X: y\r\n"), 200, "", "an endless header"},
			{"resets amid the header", func(conn net.Conn, r *bufio.Reader) { answers(fine+"X:")(conn, r); resets(conn) }, 200, "", ""},
			{"drips a body", answersThenDrips(fine+"Content-Length: 99999\r\n\r\n", "x"), 200, "", "HTTP 200, and its body did not end within 2s"},
			{"endless body", answersThenDrips(fine+"\r\n", strings.Repeat("x", 1<<16)), 200, "", "HTTP 200, its body cut at 4096 bytes"},
			{"endless chunks", answersThenDrips(fine+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), 200, "", "its body did not end within 2s"},
			{"a huge chunk extension", answersThenDrips(fine+"Transfer-Encoding: chunked\r\n\r\n1;", strings.Repeat("x", 1<<16)), 200, "", "its body ended early"},
			{"closes amid the body", answers(fine + "Content-Length: 99999\r\n\r\nx"), 200, "", "its body ended early"},
			{"resets amid the body", func(conn net.Conn, r *bufio.Reader) {
				answers(fine+"Content-Length: 99999\r\n\r\nx")(conn, r)
				resets(conn)
			}, 200, "", "its body ended early"},
			{"gzip bomb", answers(fine + "Content-Encoding: gzip\r\nContent-Length: " + fmt.Sprint(bomb.Len()) + "\r\n\r\n" + bomb.String()), 200, "", "its body cut at 4096 bytes"},
			{"failing with a drip", answersThenDrips("HTTP/1.1 500 No\r\nContent-Length: 99999\r\n\r\n", "x"), 500, "", "HTTP 500, and its body did not end within 2s: x"},
			{"failing with a gzip bomb", answers("HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: " + fmt.Sprint(bomb.Len()) + "\r\n\r\n" + bomb.String()), 500, "", "HTTP 500"},
		} {
			t.Run(m.name, func(t *testing.T) { m.test(t, client) })
		}
	})
}

// TestAttempt_AConnectionIsDroppedAtTheBoundOfABody has receivers answer 200 with an
// endless body: the client must close each connection.
func TestAttempt_AConnectionIsDroppedAtTheBoundOfABody(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for name, drop := range map[string]string{"endless": strings.Repeat("x", 1<<16), "dripping": "x"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dropped := make(chan struct{}, 3)
				url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
					answersThenDrips("HTTP/1.1 200 OK\r\n\r\n", drop)(conn, r)
					dropped <- struct{}{}
				})
				c := client.http(t)
				for range cap(dropped) {
					if a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.status != 200 {
						t.Errorf("%+v", a)
					}
					select {
					case <-dropped:
					case <-time.After(time.Minute):
						t.Fatal("the connection is still open")
					}
				}
			})
		}
	})
}

func TestAttempt_ConnectionsThatEndAreNamedByHowFarTheyCame(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for _, m := range []misbehaviour{
			{"resets before the request", func(conn net.Conn, _ *bufio.Reader) { resets(conn) }, 0, failReset, ""},
			{"resets amid the request", func(conn net.Conn, r *bufio.Reader) { r.ReadByte(); resets(conn) }, 0, failReset, ""},
			{"closes after the request", answers(""), 0, failClosed, "awaiting the answer"},
			{"resets after the request", func(conn net.Conn, r *bufio.Reader) { readRequest(r); resets(conn) }, 0, failReset, "awaiting the answer"},
		} {
			t.Run(m.name, func(t *testing.T) { m.test(t, client) })
		}
	})
}

func TestAttempt_AConnectionClosedBeforeTheRequestIsNamed(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		url := rawReceiver(t, func(net.Conn, *bufio.Reader) {})
		a := client.http(t).deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
		// Where the request has met the end it comes back as a reset.
		if a.failure != failClosed && a.failure != failReset {
			t.Errorf("failure %q (%s)", a.failure, a.detail)
		}
	})
}

func TestAttempt_TheWholeAttemptHasALimitOfItsOwn(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for name, drop := range map[string]string{"silence": "", "interim answers": "HTTP/1.1 102 Processing\r\n\r\n"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				url := rawReceiver(t, answersThenDrips("", drop))
				c := client.http(t)
				c.config.AttemptTimeout = short // less than that for a header
				atMost(t, 3*time.Second, func() {
					began := time.Now()
					a := c.deliver(t.Context(), testEndpoint(url), testEvent, began)
					if took := time.Since(began); a.failure != failTimeoutTotal || took < short {
						t.Errorf("failure %q (%s) after %v, want %q", a.failure, a.detail, took, failTimeoutTotal)
					}
				})
			})
		}
	})
}

func TestAttempt_AnEndpointWithoutAUsableSecretIsOurFault(t *testing.T) {
	t.Parallel()
	url := rawReceiver(t, func(net.Conn, *bufio.Reader) { t.Error("something was sent without a signature") })
	e := testEndpoint(url)
	for _, secrets := range [][]string{nil, {"hunter2"}, {"whsec_%%"}} {
		e.Secrets = secrets
		if a := testHTTP(t).deliver(t.Context(), e, testEvent, time.Now()); a.failure != failSecret || strings.Contains(a.detail, "hunter2") {
			t.Errorf("secrets %q: %+v, want %q", secrets, a, failSecret)
		}
	}
}

func TestAttempt_AReceiverThatTakesNoMoreOfALargeRequest(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		event := testEvent
		event.Body = bytes.Repeat([]byte("x"), 16<<20)
		url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) { <-t.Context().Done() })
		a := client.http(t, shortAttempt).deliver(t.Context(), testEndpoint(url), event, time.Now())
		if a.failure != failTimeoutSend {
			t.Errorf("failure %q (%s), want %q", a.failure, a.detail, failTimeoutSend)
		}
	})
}

func TestAttempt_AnEarlyAnswerToALargeRequestCounts(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		event := testEvent
		event.Body = bytes.Repeat([]byte("x"), 16<<20)
		url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
			r.ReadString('\n')
			io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			<-t.Context().Done()
		})
		a := client.http(t).deliver(t.Context(), testEndpoint(url), event, time.Now())
		if a.status != 413 {
			t.Errorf("%+v, want status 413", a)
		}
	})
}
