package address

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// IsServers says that a URL names servers of NATS, and no receiver over HTTP.
func IsServers(text string) bool {
	scheme, _, ok := strings.Cut(text, "://")
	scheme = strings.ToLower(scheme)
	return ok && (scheme == "nats" || scheme == "tls")
}

// FeedFault is [URLFault] of an operator's feed, whose URL may also name servers of NATS.
func FeedFault(text string) string {
	scheme, _, ok := strings.Cut(text, "://")
	switch {
	case !ok || strings.ContainsAny(scheme, "/?#@"):
		return "the URL has no scheme: want https://… or http://…, or servers of NATS, nats://… or tls://…"
	case IsServers(text):
		_, err := Servers(text)
		if err != nil {
			return err.Error()
		}
		return ""
	case !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https"):
		return "the URL's scheme is none of https, http, nats and tls"
	}
	return URLFault(text)
}

// Servers reads the URL of one or more servers of NATS, comma separated:
// nats://a:4222,b:4222. All have the scheme of the first one. Its errors are for people and
// show nothing of the URL.
func Servers(text string) (servers []*url.URL, err error) {
	if len(text) > MaxURLBytes {
		return nil, errors.New("the URL is longer than " + strconv.Itoa(MaxURLBytes) + " bytes")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return nil, errors.New("the URL contains a blank or a control character")
	}
	scheme, _, _ := strings.Cut(text, "://")
	scheme = strings.ToLower(scheme)
	for one := range strings.SplitSeq(text, ",") {
		its, rest, named := strings.Cut(one, "://")
		if !named {
			its, rest = scheme, one
		}
		u, err := url.Parse(scheme + "://" + rest)
		switch {
		case err != nil:
			return nil, errors.New("the URL has a syntax error: want nats://host:4222, and further servers after commas")
		case !strings.EqualFold(its, scheme):
			return nil, errors.New("the URL's servers differ in their schemes: want nats:// or tls:// for all of them")
		case u.User != nil:
			return nil, errors.New("the URL has a user name, a password or a token: put credentials into a file and name it with --nats-credentials where senders run")
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			return nil, errors.New("the URL has a path, a query or a fragment: want servers alone")
		case u.Hostname() == "":
			return nil, errors.New("the URL has no host")
		}
		host := NormalHost(u.Hostname())
		if fault := hostFault(host); fault != "" {
			return nil, errors.New(fault)
		}
		port := u.Port()
		if port == "" {
			port = "4222"
		} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, errors.New("the URL's port is not in 1 to 65535")
		}
		servers = append(servers, &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port)})
	}
	return servers, nil
}

// ShareServers says that two URLs have a server of NATS in common.
func ShareServers(a, b string) bool {
	if !IsServers(a) || !IsServers(b) {
		return false
	}
	of, err := Servers(a)
	if err != nil {
		return false
	}
	others, err := Servers(b)
	if err != nil {
		return false
	}
	for _, one := range of {
		for _, other := range others {
			if one.Host == other.Host {
				return true
			}
		}
	}
	return false
}

// redactServers is [Redact] of servers. User information is refused, and so never stored;
// whatever cannot be read is not shown.
func redactServers(text string) string {
	servers, err := Servers(text)
	if err != nil {
		return "(not shown: no URL)"
	}
	shown := make([]string, len(servers))
	for i, server := range servers {
		shown[i] = server.String()
	}
	return strings.Join(shown, ",")
}
