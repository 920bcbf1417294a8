package endtoend

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// shot is what one connection sends to the API: a request line and headers as they
// are written, a body, and the manner in which both are sent.
type shot struct {
	route  int    // of the routes it is made for; -1 for none
	target string // of the request line
	method string
	header string // whole lines, each with its end
	body   []byte
	manner manner
}

// manner is how a shot is sent.
type manner uint8

const (
	plainly      manner = iota
	oldVersion          // HTTP/1.0
	inChunks            // a chunked body
	badlyChunked        // chunks that break the rules
	tooShort            // the body ends before its Content-Length, and so does the stream
	halfClosed          // the sending side is closed behind the request
	dripped             // a few bytes at a time
	pipelined           // three times at once
	expecting           // the body waits for 100 Continue
	headless            // no Content-Length: what the header says counts
	abandoned           // the connection is closed without reading
	resetAfter          // … and reset
	manners
)

// head is the request as it is written, up to the body.
func (s shot) head() string {
	version := "HTTP/1.1"
	if s.manner == oldVersion {
		version = "HTTP/1.0"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\nHost: walhook\r\n%s", s.method, s.target, version, s.header)
	switch s.manner {
	case headless:
	case inChunks, badlyChunked:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case tooShort:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(s.body)+100)
	case expecting:
		fmt.Fprintf(&b, "Expect: 100-continue\r\nContent-Length: %d\r\n", len(s.body))
	default:
		if len(s.body) > 0 || s.method != http.MethodGet {
			fmt.Fprintf(&b, "Content-Length: %d\r\n", len(s.body))
		}
	}
	b.WriteString("\r\n")
	return b.String()
}

// tail is the body as it is written.
func (s shot) tail() []byte {
	var b bytes.Buffer
	switch s.manner {
	case inChunks:
		for rest := s.body; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)/3)
			fmt.Fprintf(&b, "%x;a=b\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		b.WriteString("0\r\nX-Trailer: x\r\n\r\n")
	case badlyChunked:
		fmt.Fprintf(&b, "%x\r\n%s-5\r\nffffffffffffffffffff\r\n", len(s.body), s.body)
	default:
		return s.body
	}
	return b.Bytes()
}

// whole says that the shot is one request that a server must answer: what it holds
// follows RFC 9112, and its end is where it says.
func (s shot) whole() bool {
	switch s.manner {
	case badlyChunked, tooShort, headless, abandoned, resetAfter:
		return false
	}
	head := s.head()
	if len(head) > 30<<10 || len(s.body) > 200<<10 || strings.Contains(strings.ToLower(s.header), "expect:") {
		return false
	}
	reader := bufio.NewReader(io.MultiReader(strings.NewReader(head), bytes.NewReader(s.tail())))
	request, err := http.ReadRequest(reader)
	if err != nil || request.Host != "walhook" || len(request.TransferEncoding) > 1 {
		return false
	}
	for name, values := range request.Header { // ReadRequest takes more than a server does
		if !fieldName.MatchString(name) || slices.ContainsFunc(values, func(v string) bool { return strings.ContainsFunc(v, isControl) }) {
			return false
		}
	}
	body, err := io.ReadAll(request.Body)
	return err == nil && bytes.Equal(body, s.body) && reader.Buffered() == 0
}

var fieldName = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$") // RFC 9110, 5.1

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// String is enough to send the shot again.
func (s shot) String() string {
	return fmt.Sprintf("manner %d, %.1500q + %d bytes %.600q", s.manner, s.head(), len(s.body), s.body)
}

// answered is what came back for a request.
type answered struct {
	*http.Response
	text []byte
}

// fire sends the shot on a connection of its own, and says what was answered
// before the connection ended or had nothing more to say.
func (s shot) fire(ctx context.Context, address string, within time.Duration) ([]answered, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(within))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		s.send(ctx, conn.(*net.TCPConn))
	}()
	defer func() {
		_ = conn.Close()
		<-sent
	}()
	switch s.manner {
	case abandoned, resetAfter:
		<-sent
		return nil, nil
	}
	requests := 1
	if s.manner == pipelined {
		requests = 3
	}
	var all []answered
	reader := bufio.NewReader(conn)
	for range requests {
		response, err := s.read(reader)
		if err != nil {
			return all, err
		}
		all = append(all, response)
		if response.Close {
			break
		}
	}
	return all, nil
}

// send writes the shot. What a server does not want to read any more is not an
// error: the answer tells.
func (s shot) send(ctx context.Context, conn *net.TCPConn) {
	head, tail := s.head(), s.tail()
	switch s.manner {
	case dripped:
		text := append([]byte(head), tail...)
		step := max(len(text)/20, 1)
		for len(text) > 0 {
			n := min(step, len(text))
			if _, err := conn.Write(text[:n]); err != nil || !linger(ctx, 10*time.Millisecond) {
				return
			}
			text = text[n:]
		}
	case pipelined:
		_, _ = conn.Write(bytes.Repeat(append([]byte(head), tail...), 3))
	case expecting:
		// Who gets no leave sends the body all the same after a while (RFC 9110, 10.1.1).
		_, _ = io.WriteString(conn, head)
		linger(ctx, 50*time.Millisecond)
		_, _ = conn.Write(tail)
	default:
		_, _ = io.WriteString(conn, head)
		_, _ = conn.Write(tail)
	}
	switch s.manner {
	case tooShort, halfClosed, badlyChunked, headless:
		_ = conn.CloseWrite()
	case resetAfter:
		_ = conn.SetLinger(0)
	}
}

// read reads an answer. Of a stream that need not end it reads the head.
func (s shot) read(reader *bufio.Reader) (answered, error) {
	method := s.method
	if method != http.MethodHead {
		method = http.MethodGet // a CONNECT too is answered with a body
	}
	for {
		response, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			return answered{}, err
		}
		if response.StatusCode < 200 {
			continue
		}
		answer := answered{Response: response}
		if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind != "text/event-stream" {
			answer.text, err = io.ReadAll(io.LimitReader(response.Body, 8<<20))
		}
		return answer, err
	}
}

// fault says what is wrong with an answer, whatever it is an answer to; "" for
// nothing.
func (s shot) fault(a answered) string {
	kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	switch {
	case isOfServer(a, kind):
		return ""
	case a.StatusCode == http.StatusServiceUnavailable || a.StatusCode == http.StatusTooManyRequests:
		if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); (err != nil || seconds < 1) && !s.isFor("/readyz") {
			return fmt.Sprintf("Retry-After is %q", a.Header.Get("Retry-After"))
		}
	case a.StatusCode >= 500:
		return "it blames the server"
	}
	if a.StatusCode == http.StatusServiceUnavailable && !bytes.Contains(a.text, []byte("too many")) && !s.isFor("/readyz") && s.manner != abandoned {
		return "nothing is too busy to answer it"
	}
	switch {
	case s.method == http.MethodHead || a.StatusCode == http.StatusNoContent || a.StatusCode == http.StatusNotModified:
		if len(a.text) > 0 {
			return "it has a body"
		}
		return ""
	case a.Header.Get("Content-Encoding") != "":
		return "" // metrics, packed
	case !utf8.Valid(a.text):
		return "its body is not UTF-8"
	case kind == "application/json":
		return envelopeFault(a)
	case a.StatusCode < 300 && (s.isFor("/healthz") || s.isFor("/readyz") || s.isFor("/metrics")) && kind == "text/plain",
		a.StatusCode == http.StatusServiceUnavailable && s.isFor("/readyz"):
		return ""
	case kind == "text/html" && strings.Contains(s.target, "/portal/"):
		return "" // a page
	case a.StatusCode < 300 && kind == "application/openapi+yaml", a.StatusCode < 300 && kind == "text/event-stream":
		return ""
	case a.StatusCode < 300 && strings.HasSuffix(kind, "+json"):
		if !json.Valid(a.text) {
			return "its body is no JSON"
		}
		return ""
	}
	return fmt.Sprintf("its Content-Type is %q", kind)
}

func (s shot) isFor(path string) bool {
	target, _, _ := strings.Cut(s.target, "?")
	if scheme, rest, absolute := strings.Cut(target, "://"); absolute && !strings.Contains(scheme, "/") {
		_, target, _ = strings.Cut(rest, "/")
		target = "/" + target
	}
	for strings.Contains(target, "//") {
		target = strings.ReplaceAll(target, "//", "/")
	}
	return strings.TrimRight(target, "/") == path
}

// isOfServer says that the answer is net/http's own, to what is no request that a
// route could see: docs/API.md names them. Each closes the connection.
func isOfServer(a answered, kind string) bool {
	if a.Header.Get("X-Request-Id") != "" || !a.Close {
		return false
	}
	switch a.StatusCode {
	case http.StatusExpectationFailed:
		return len(a.text) == 0
	case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge, http.StatusHTTPVersionNotSupported, http.StatusNotImplemented:
		return kind == "text/plain" && len(a.text) < 200
	}
	return false
}

// envelopeFault holds a body against the shapes of docs/API.md.
func envelopeFault(a answered) string {
	var body struct {
		Data      json.RawMessage
		Status    string
		Error     string
		Message   string
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(a.text, &body); err != nil {
		return fmt.Sprintf("its body is no JSON of the documented shape: %v", err)
	}
	id := a.Header.Get("X-Request-Id")
	switch {
	case body.RequestID != id && a.Header.Get("Idempotent-Replayed") == "": // whose body names the first request
		return fmt.Sprintf("request_id is %q, and the header says %q", body.RequestID, id)
	case id == "" && a.StatusCode != http.StatusServiceUnavailable:
		return "it has no X-Request-Id"
	case a.StatusCode >= 300 && (body.Status != "error" || body.Error != strconv.Itoa(a.StatusCode) || strings.TrimSpace(body.Message) == ""):
		return "it is no error of the documented shape"
	case a.StatusCode < 300 && (body.Status != "success" || len(body.Data) == 0):
		return "it is no success of the documented shape"
	case strings.Contains(body.Message, "panic") || strings.Contains(body.Message, "SQLSTATE") || strings.Contains(body.Message, "json:"):
		return "it tells of our insides"
	}
	return ""
}

// isClosed says that an answer is missing because the other end closed the
// connection or refused it, not because it let somebody wait.
func isClosed(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return !ok || !timeout.Timeout()
}
