package address

import (
	"strings"
	"testing"
)

func TestServers_ReadsOneOrMore(t *testing.T) {
	for text, want := range map[string]string{
		"nats://a.example":                          "nats://a.example:4222",
		"nats://a.example:4223":                     "nats://a.example:4223",
		"tls://A.example.,b.example:1":              "tls://a.example:4222,tls://b.example:1",
		"nats://10.0.0.1:4222,nats://10.0.0.2:4222": "nats://10.0.0.1:4222,nats://10.0.0.2:4222",
		"nats://[2001:db8::1]:4222,[2001:db8::2]":   "nats://[2001:db8::1]:4222,nats://[2001:db8::2]:4222",
		"NATS://a.example/":                         "nats://a.example:4222",
	} {
		if got := Redact(text); got != want || !IsServers(text) {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{
		"nats://", "nats://a.example,", "nats://u:secret@a.example", "nats://a.example,u:secret@b.example", "nats://secret@a.example", "nats://a.example/x", "nats://a.example?secret",
		"nats://a.example,tls://b.example", "nats://a.example,http://b.example", "nats://a.example:0", "nats://a.example:99999", "nats://a b", "nats://a..b", "nats://a\nb", "nats://" + strings.Repeat("a", 5000),
	} {
		_, err := Servers(text)
		if err == nil {
			t.Errorf("%q is taken", text)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(Redact(text), "secret") {
			t.Errorf("%q is shown: %v, %s", text, err, Redact(text))
		}
		if URLFault(text) == "" {
			t.Errorf("%q is taken for an account", text)
		}
	}
	for _, text := range []string{"https://a.example", "http://a.example", "nats", "a.example:4222", ""} {
		if IsServers(text) {
			t.Errorf("%q is taken for servers", text)
		}
	}
}

func TestFeedFault_SaysWhatAFeedsURLMayBe(t *testing.T) {
	const scheme, other = "the URL has no scheme: want https://… or http://…, or servers of NATS, nats://… or tls://…", "the URL's scheme is none of https, http, nats and tls"
	for text, want := range map[string]string{
		"https://a.example/in": "", "http://10.0.0.1:8080": "", "nats://a.example": "", "TLS://a.example:4222,b.example": "", "HTTPS://a.example": "",
		"a.example":               scheme,
		"a.example:4222":          scheme,
		"//a.example":             scheme,
		"a.example/https://b":     scheme,
		"ws://a.example":          other,
		"natss://a.example":       other,
		"https://":                "the URL has no host",
		"https://a b.example":     "the URL has a syntax error",
		"https://a.example:99999": "the URL's port is not in 1 to 65535",
		"nats://a.example/x":      "the URL has a path, a query or a fragment: want servers alone",
		"nats://u:secret@a":       "the URL has a user name, a password or a token: put credentials into a file and name it with --nats-credentials where senders run",
	} {
		if got := FeedFault(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestShareServers_ComparesHostsAndPorts(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"nats://a.example", "tls://A.example:4222", true},
		{"nats://b.example,a.example", "nats://c.example,b.example.:4222", true},
		{"nats://a.example", "nats://a.example:4223", false},
		{"nats://a.example", "https://a.example:4222", false},
		{"nats://a.example", "nats://b.example", false},
	} {
		if ShareServers(c.a, c.b) != c.want || ShareServers(c.b, c.a) != c.want {
			t.Errorf("%s and %s share servers: %v", c.a, c.b, !c.want)
		}
	}
}
