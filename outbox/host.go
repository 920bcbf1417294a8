package outbox

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// HostOf is the host of a URL in its normal form. The port is no part of it; ""
// where there is no host.
func HostOf(address string) string {
	u, err := parseEncoded(address)
	if err != nil {
		return ""
	}
	return NormalHost(u.Hostname())
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
