package deliver

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
)

// statusError says that an answer's status is no status of HTTP.
type statusError struct{ text string }

func (e *statusError) Error() string {
	return fmt.Sprintf("the answer's status is no number of three digits: %q", e.text)
}

// statusOf reads a status: three digits (RFC 9110, 15), the first of which is not
// zero. Those from 600 on are outside HTTP, and are kept as what they are.
func statusOf(text string) (status int, ok bool) {
	if len(text) != 3 || text[0] == '0' {
		return 0, false
	}
	for _, digit := range []byte(text) {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		status = 10*status + int(digit-'0')
	}
	return status, true
}

// isInterim says that another answer follows. Nothing that HTTP has a name for
// follows 101.
func isInterim(status int) bool {
	return status < 200 && status != http.StatusSwitchingProtocols
}

// checkStatus refuses what net/http takes for a status beyond three digits: over
// HTTP/1 a sign or a leading zero, over HTTP/2 any whole number.
func checkStatus(resp *http.Response) error {
	text, _, _ := strings.Cut(resp.Status, " ")
	if status, ok := statusOf(text); !ok || status != resp.StatusCode {
		return &statusError{text}
	}
	return nil
}

// statusLineLen is as much of an answer as names its status: "HTTP/1.1 200 ".
const statusLineLen = len("HTTP/1.1 200 ")

// statusLine is how an answer over HTTP/1 begins.
type statusLine struct {
	head [statusLineLen]byte
	n    int // bytes of head
}

func (s *statusLine) bytes() []byte { return s.head[:s.n] }

// String is for people.
func (s *statusLine) String() string { return string(bytes.TrimRight(s.bytes(), "\r\n")) }

// status is the status that it names (RFC 9112, 4), final or interim.
func (s *statusLine) status() (status int, ok bool) {
	version, rest, _ := bytes.Cut(s.bytes(), []byte(" "))
	if len(rest) != 4 || !bytes.HasPrefix(version, []byte("HTTP/1.")) || !bytes.ContainsAny(rest[3:], " \r\n") {
		return 0, false
	}
	return statusOf(string(rest[:3]))
}

// final is the final status that it names; 0 when there is none, or an interim
// one.
func (s *statusLine) final() int {
	if status, ok := s.status(); ok && status >= 200 {
		return status
	}
	return 0
}

// misnumbered says that it is one of HTTP/1 whose status is no number of three
// digits.
func (s *statusLine) misnumbered() bool {
	version, rest, _ := bytes.Cut(s.bytes(), []byte(" "))
	if !bytes.HasPrefix(version, []byte("HTTP/1.")) {
		return false
	}
	end := bytes.IndexAny(rest, " \r\n")
	if end < 0 {
		return len(rest) > 3 // else it broke off
	}
	_, ok := statusOf(string(rest[:end]))
	return !ok
}

// answerError is why an answer that had begun did not come to the end of its
// header.
type answerError struct {
	status int    // the final status that was seen; 0 for none
	begins []byte // of the answer over HTTP/1; nil for HTTP/2
	err    error
}

func (e *answerError) Error() string { return e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }
