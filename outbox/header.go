package outbox

import (
	"slices"
	"strconv"
	"strings"
)

// Header is a static header of an endpoint's requests.
type Header struct {
	Name  string
	Value string // never shown, never logged
}

// Bounds of an endpoint's headers. A receiver takes some 8 KiB of headers in all.
const (
	MaxHeaders     = 10
	MaxHeaderName  = 128
	MaxHeaderValue = 4096
	MaxHeaderBytes = 6 << 10 // all names and values, when they are set
)

// ourHeaders are those of docs/CONTRACT.md §3, of the message's framing, and of the
// connection (RFC 9110, section 7.6.1; RFC 9113, section 8.2.2), in lower case. A value
// explains for people why an endpoint cannot have one.
var ourHeaders = map[string]string{
	"user-agent":        "walhook sets it itself",
	"host":              "the URL names the host",
	"connection":        "it is about the connection, which walhook manages",
	"keep-alive":        "it is about the connection, which walhook manages",
	"te":                "it is about the connection, which walhook manages",
	"trailer":           "it is about the connection, which walhook manages",
	"transfer-encoding": "walhook frames the body itself",
	"upgrade":           "it is about the connection, which walhook manages",
	"http2-settings":    "it is about the connection, which walhook manages",
	"expect":            "walhook waits for no interim answer",
	"accept-encoding":   "walhook reads answers that are not compressed",
}

// ourPrefixes are the beginnings of such names.
var ourPrefixes = []struct{ prefix, why string }{
	{"webhook-", "walhook sets headers of this name itself"},
	{"walhook-", "walhook sets headers of this name itself"},
	{"content-", "walhook describes the body itself"},
	{"proxy-", "it is for proxies, and walhook uses none"},
}

// HeaderNameFault says for people why an endpoint can have no header of a name; "" when
// it can.
func HeaderNameFault(name string) string {
	switch {
	case name == "":
		return "its name is empty"
	case len(name) > MaxHeaderName:
		return "its name is longer than " + strconv.Itoa(MaxHeaderName) + " bytes"
	case !isToken(name):
		return "its name is no header name: want letters, digits and - alone, such as X-Api-Key"
	}
	// Many servers make one name of _ and -: RFC 3875, section 4.1.18.
	lower := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	why := ourHeaders[lower]
	for _, one := range ourPrefixes {
		if strings.HasPrefix(lower, one.prefix) {
			why = one.why
		}
	}
	if why != "" {
		return "cannot be set: " + why
	}
	return ""
}

// isToken reports whether a text is a token (RFC 9110, section 5.6.2).
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}

// HeaderValueFault says for people why a header can have no such value; "" when it can.
// It quotes nothing of the value.
func HeaderValueFault(value string) string {
	switch {
	case value == "":
		return "its value is empty"
	case len(value) > MaxHeaderValue:
		return "its value is longer than " + strconv.Itoa(MaxHeaderValue) + " bytes"
	case strings.Trim(value, " \t") != value:
		return "its value begins or ends with a blank"
	case strings.ContainsFunc(value, func(r rune) bool { return r != '\t' && (r < ' ' || r > '~') }):
		return "its value has other characters than visible ASCII, spaces and tabs"
	case strings.HasPrefix(value, "sealed:v"):
		return "its value begins with sealed:v, which marks what walhook encrypted"
	}
	return ""
}

// headersFault says why headers cannot be sent; "" when they can.
func headersFault(headers []Header) string {
	for i, h := range headers {
		if fault := HeaderNameFault(h.Name); fault != "" {
			return fault
		}
		if fault := HeaderValueFault(h.Value); fault != "" {
			return fault
		}
		if slices.ContainsFunc(headers[:i], func(o Header) bool { return strings.EqualFold(o.Name, h.Name) }) {
			return "two names differ in case alone"
		}
	}
	if len(headers) > MaxHeaders {
		return "there are more than " + strconv.Itoa(MaxHeaders)
	}
	return ""
}
