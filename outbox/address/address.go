package address

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// MaxURLBytes bounds a web hook URL; longer ones do not pass common proxies.
const MaxURLBytes = 4096

// URLFault says why a URL cannot be used, for people, or "" when it looks as
// if it could. Whether its host may be reached is known only when it is
// dialled. The URL itself is not quoted: it may hold a password.
func URLFault(s string) string {
	if len(s) > MaxURLBytes {
		return "the URL is longer than " + strconv.Itoa(MaxURLBytes) + " bytes"
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
	u, err := Parse(s)
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
	u, err = Parse(text)
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

// JoinQuery adds a query to a URL's own, and drops the fragment, which requests do not
// have.
func JoinQuery(target *url.URL, query string) {
	target.Fragment, target.RawFragment = "", ""
	if query == "" {
		return
	}
	if target.RawQuery != "" && !strings.HasSuffix(target.RawQuery, "&") {
		target.RawQuery += "&"
	}
	target.RawQuery += query
	target.ForceQuery = false
}

// Redact leaves scheme, host and path. What cannot be read, or has no host
// and so may be anything, is not shown at all.
func Redact(s string) string {
	if s == "" {
		return ""
	}
	if IsServers(s) {
		return redactServers(s)
	}
	u, err := Parse(s)
	if err != nil || u.Host == "" {
		return "(not shown: no URL)"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	text := shown.String()
	if u.User != nil {
		text = strings.Replace(text, "://", "://…@", 1)
	}
	if u.RawQuery != "" {
		text += "?…"
	}
	return text
}

// What stands in a part of a URL besides letters and digits (RFC 3986, 3.2.1, 3.3
// and 3.4).
const (
	userChars  = "-._~!$&'()*+,;=:"
	pathChars  = userChars + "@/"
	queryChars = pathChars + "?"
)

// Parse is [url.Parse] of a URL that may hold what has to be encoded. It
// too refuses control characters: they are there by mistake.
func Parse(text string) (*url.URL, error) {
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

// HostOf is the host of a URL in its normal form. The port is no part of it; ""
// where there is no host.
func HostOf(address string) string {
	u, err := Parse(address)
	if err != nil {
		return ""
	}
	return NormalHost(u.Hostname())
}

// Origin is scheme, host and port of a URL, in a normal form: the same for all the ways to
// write them. "" where there is no host.
func Origin(address string) string {
	u, err := Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(NormalHost(u.Hostname()), port)
}

// NormalHost is the normal form of a host's name or address, and the only one:
// what is dialled and asked for, certificates, holds, limits and kept connections
// go by it. It is equal for all the ways to write one host, whatever the case, the
// form of its letters (UTS 46), a dot at its end, the script of its digits, or the
// base of an address's numbers. What is no name and no address is in lower case.
func NormalHost(host string) string {
	if address, literal := LiteralAddress(host); literal {
		return address.String()
	}
	return nameOf(host)
}

// NamedHost is the normal form of a host that a person names: a name, an address,
// a URL, or a host with its port. "" where there is none.
func NamedHost(text string) string {
	if _, literal := LiteralAddress(text); literal {
		return NormalHost(text)
	}
	if !strings.Contains(text, "://") {
		text = "//" + text
	}
	return HostOf(text)
}

// LiteralAddress reads a host that is an address and no name, also in the forms
// that only resolvers read: 2130706433, 0x7f.1, 127.1 and 0177.0.0.1 are
// 127.0.0.1 (inet_aton), and so are its full-width digits.
func LiteralAddress(host string) (address netip.Addr, literal bool) {
	host = nameOf(host)
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return a.Unmap().WithZone(""), true
	}
	return inetAton(host)
}

// names maps and checks as browsers do (UTS 46, nontransitional processing). What
// ASCII a label may hold is checked by nameFault: name servers also have names with
// underscores, or with hyphens in odd places.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckJoiners(true),
	idna.Transitional(false), idna.StrictDomainName(false), idna.CheckHyphens(false))

// nameOf is a name as it is looked up.
func nameOf(host string) string {
	if ascii, err := names.ToASCII(host); err == nil {
		host = ascii
	}
	return strings.ToLower(strings.TrimRight(host, "."))
}

// hostFault says for people why a host in its normal form is none, or "".
func hostFault(host string) string {
	if _, literal := LiteralAddress(host); literal {
		return ""
	}
	if host == "" {
		return "the URL has no host"
	}
	if len(host) > 253 {
		return "the URL's host is longer than 253 characters"
	}
	if _, err := names.ToASCII(host); err != nil {
		return "the URL's host is not a domain name (IDNA rejects it)"
	}
	last := ""
	for last = range strings.SplitSeq(host, ".") {
		if last == "" || len(last) > 63 {
			return "the URL's host has an empty label, or one of more than 63 characters"
		}
		for _, c := range []byte(last) {
			if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
				continue
			}
			return "the URL's host contains a character that no domain name has"
		}
	}
	if hex, is := strings.CutPrefix(last, "0x"); strings.Trim(last, "0123456789") == "" || is && strings.Trim(hex, "0123456789abcdef") == "" {
		return "the URL's host ends in a number and is not an IPv4 address"
	}
	return ""
}

// inetAton reads an IPv4 address of one to four numbers, in base 8, 10 or 16,
// the last of which fills the rest of the address (inet_aton(3)).
func inetAton(host string) (address netip.Addr, ok bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return address, false
	}
	var value uint64
	for i, part := range parts {
		if !strings.HasPrefix(part, "0x") && strings.ContainsAny(part, "xob_+-") {
			return address, false // other prefixes and signs are Go's
		}
		base := 10
		switch digits, hex := strings.CutPrefix(part, "0x"); {
		case hex:
			part, base = digits, 16
			if part == "" {
				part = "0"
			}
		case len(part) > 1 && part[0] == '0':
			base = 8
		}
		n, err := strconv.ParseUint(part, base, 32)
		if err != nil {
			return address, false
		}
		if last := i == len(parts)-1; last {
			if n >= 1<<(8*(4-i)) {
				return address, false
			}
			value = value<<(8*(4-i)) | n
		} else if n > 255 {
			return address, false
		} else {
			value = value<<8 | n
		}
	}
	var bytes [4]byte
	binary.BigEndian.PutUint32(bytes[:], uint32(value))
	return netip.AddrFrom4(bytes), true
}
