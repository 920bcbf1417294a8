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
