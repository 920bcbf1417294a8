package outbox

import (
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// maxURLBytes bounds a web hook URL; longer ones do not pass common proxies.
const maxURLBytes = 4096

// URLFault says why a URL cannot be used, for people, or "" when it looks as
// if it could. Whether its host may be reached is known only when it is
// dialled. The URL itself is not quoted: it may hold a password.
func URLFault(s string) string {
	if len(s) > maxURLBytes {
		return "the URL is longer than " + strconv.Itoa(maxURLBytes) + " bytes"
	}
	if strings.ContainsFunc(s, func(c rune) bool { return unicode.IsControl(c) || c == ' ' }) {
		return "the URL holds a blank or a control character"
	}
	if strings.Contains(s, "\uFFFD") {
		return "the URL holds bytes that are not UTF-8"
	}
	u, err := url.Parse(s)
	if err != nil {
		return "the URL has a syntax fault"
	}
	switch u.Scheme {
	case "http", "https":
	case "":
		return "the URL has no scheme: want http:// or https://"
	default:
		return "the URL's scheme is neither http nor https"
	}
	if u.Hostname() == "" {
		return "the URL has no host"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "the URL's port is not 1 to 65535"
		}
	}
	return ""
}
