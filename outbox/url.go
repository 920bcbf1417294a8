package outbox

import (
	"errors"
	"net"
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
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "the URL contains a control character"
	}
	if strings.TrimSpace(s) != s {
		return "the URL begins or ends with a blank"
	}
	if strings.Contains(s, "\uFFFD") {
		return "the URL contains bytes that are not UTF-8"
	}
	u, err := parseEncoded(s)
	if err != nil {
		return "the URL has a syntax error"
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
	if fault := hostFault(NormalHost(u.Hostname())); fault != "" {
		return fault
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "the URL's port is not in 1 to 65535"
		}
	}
	return ""
}

// RequestURL is a URL as a request is made to it: what RFC 3986 does not allow in
// its path and query is percent-encoded, what is encoded stays as it is, and the
// host has its normal form. The fragment, which no request carries, is left out.
// zone is the interface of a link-local address, which only this machine knows; ""
// for none. Errors show nothing of the URL.
func RequestURL(text string) (u *url.URL, zone string, err error) {
	u, err = parseEncoded(text)
	if err != nil {
		return nil, "", errors.New("url cannot be parsed") // err would show it
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, "", errors.New("url is not http or https with a host")
	}
	host := NormalHost(u.Hostname())
	if fault := hostFault(host); fault != "" {
		return nil, "", errors.New(fault)
	}
	_, zone, _ = strings.Cut(u.Hostname(), "%")
	port := u.Port()
	switch {
	case port != "":
		u.Host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		u.Host = "[" + host + "]"
	default:
		u.Host = host
	}
	return u, zone, nil
}

// What stands in a part of a URL besides letters and digits (RFC 3986, 3.2.1, 3.3
// and 3.4).
const (
	userChars  = "-._~!$&'()*+,;=:"
	pathChars  = userChars + "@/"
	queryChars = pathChars + "?"
)

// parseEncoded is [url.Parse] of a URL that may hold what has to be encoded. It
// too refuses control characters: they are there by mistake.
func parseEncoded(text string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || strings.ContainsAny(scheme, "/?#") || strings.ContainsFunc(text, unicode.IsControl) {
		return url.Parse(text)
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, hasQuery := strings.Cut(rest, "?")
	authority, path, hasPath := strings.Cut(rest, "/")
	// A backslash ends the host for some, and "…" stands where user name and password
	// are not shown: neither is taken for part of them.
	if at := strings.LastIndexByte(authority, '@'); at >= 0 && !strings.ContainsAny(authority[:at], `\…`) {
		authority = percentEncode(authority[:at], userChars) + authority[at:]
	}
	text = scheme + "://" + authority
	if hasPath {
		text += "/" + percentEncode(path, pathChars)
	}
	if hasQuery {
		text += "?" + percentEncode(query, queryChars)
	}
	return url.Parse(text)
}

// percentEncode encodes each byte that is no letter, digit or one of chars, and
// each percent sign that encodes nothing.
func percentEncode(s, chars string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(chars, c) >= 0,
			c == '%' && i+2 < len(s) && isHexDigit(s[i+1]) && isHexDigit(s[i+2]):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

func isHexDigit(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }
