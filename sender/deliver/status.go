package deliver

import (
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
