package address

import (
	"strings"
	"testing"
)

func TestRequestURL_EncodesWhatRFC3986DoesNotAllowAndNothingElse(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"https://h.example/?q=ä", "https://h.example/?q=%C3%A4"},
		{"https://h.example/?q=\"<>{}|\\^`[]", "https://h.example/?q=%22%3C%3E%7B%7D%7C%5C%5E%60%5B%5D"},
		{"https://h.example/\"<>{}|\\^`[]", "https://h.example/%22%3C%3E%7B%7D%7C%5C%5E%60%5B%5D"},
		{"https://h.example/?q=100%", "https://h.example/?q=100%25"},
		{"https://h.example/?q=%zz%4", "https://h.example/?q=%25zz%254"},
		{"https://h.example/100%/50%2", "https://h.example/100%25/50%252"},
		{"https://h.example/a b?c d", "https://h.example/a%20b?c%20d"},
		{"https://h.example/%C3%A4?q=%c3%a4+%20&x=%25", "https://h.example/%C3%A4?q=%c3%a4+%20&x=%25"},
		{"https://h.example/a%2Fb/ä", "https://h.example/a%2Fb/%C3%A4"},
		{"https://h.example/-._~!$&'()*+,;=:@/?-._~!$&'()*+,;=:@/?", "https://h.example/-._~!$&'()*+,;=:@/?-._~!$&'()*+,;=:@/?"},
		{"https://h.example/?a=1#frägment%", "https://h.example/?a=1"},
		{"https://h.example/?a=😀", "https://h.example/?a=%F0%9F%98%80"},
		{"https://h.example?", "https://h.example?"},
		{"https://h.example", "https://h.example"},
		{"https://ü ser:pä%ss%20@h.example/", "https://%C3%BC%20ser:p%C3%A4%25ss%20@h.example/"},
		{"https://u:p@ss@h.example/@", "https://u:p%40ss@h.example/@"},
		{"https://h.example:8443/x", "https://h.example:8443/x"},
		{"https://h.example:/x", "https://h.example/x"},
		{"HTTPS://H.EXAMPLE./X", "https://h.example/X"},
	} {
		u, _, err := RequestURL(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if got := u.String(); got != c.want {
			t.Errorf("%s is requested as %s, want %s", c.url, got, c.want)
		}
		if fault := URLFault(c.url); fault != "" {
			t.Errorf("%s: %s", c.url, fault)
		}
		if again, _, err := RequestURL(c.want); err != nil || again.String() != c.want {
			t.Errorf("%s, encoded once more: %v (%v)", c.want, again, err)
		}
	}
}

func TestRequestURL_HasOneFormOfAHost(t *testing.T) {
	for want, hosts := range map[string][]string{
		"xn--bcher-kva.example": {"bücher.example", "BÜCHER.example", "bu\u0308cher.example", "ｂücher．example", "bücher。example", "bücher.example.",
			"BU\u0308CHER.EXAMPLE。", "xn--bcher-kva.example", "XN--BCHER-KVA.example", "b%C3%BCcher.example"},
		"xn--strae-oqa.example": {"straße.example", "STRAßE.example"},
		"xn--fuball-cta.de":     {"fußball.de"},
		"strasse.example":       {"strasse.example"},
		"xn--80ak6aa92e.com":    {"аррӏе.com"},
		"xn--54b7fta0cc.com":    {"বাংলা.com"},
		"under_score.example":   {"Under_Score.example"},
		"xn--_-dha.example":     {"ü_.example"},
		"r3---sn-x.example":     {"r3---sn-x.example"},
		"127.0.0.1":             {"127.1", "0x7f.1", "017700000001", "2130706433", "①②⑦.0.0.1", "127。0。0。1", "127.0.0.1.", "[::ffff:127.0.0.1]"},
		"[2001:db8::1]":         {"[2001:0DB8:0::1]"},
		"[fe80::1]":             {"[fe80::1%25eth0]"},
	} {
		for _, host := range hosts {
			u, _, err := RequestURL("https://" + host + "/")
			if err != nil {
				t.Errorf("%s: %v", host, err)
			} else if u.Host != want {
				t.Errorf("%s is asked for as %s, want %s", host, u.Host, want)
			}
			if got := HostOf("https://" + host + ":8443/"); got != strings.Trim(want, "[]") {
				t.Errorf("%s has the normal form %s, want %s", host, got, want)
			}
		}
	}
}

func TestURLFault_NamesAnInvalidHost(t *testing.T) {
	for _, host := range []string{
		"xn--abc-.example",                   // decodes to ASCII
		"xn--a.example",                      // is no punycode
		"xn--ls8h=.example", "a\u200db.test", // a joiner where none may be
		strings.Repeat("x", 64) + ".example", strings.Repeat("ü", 63) + ".example", strings.Repeat("a.", 127) + "example",
		"a..example", ".example", "a。。example", "1.2.3.4.5", "256.1.1.1", "99999999999", "1.2.3.0x1ffffffff0", "a$b.example", "exa⒈⒉mple。。com", "ⓐ ⓑ.example", "…", "\u00ad",
	} {
		url := "https://" + host + "/"
		if URLFault(url) == "" {
			t.Errorf("%s is taken", url)
		}
		if u, _, err := RequestURL(url); err == nil {
			t.Errorf("%s is requested as %s", url, u)
		}
	}
	for _, url := range []string{"https://h.example/\n", "https://h.example/a\tb", " https://h.example/", "https://h.example/ ", "https://good.example\\@bad.example/", "https://h.example\\x", "https://…@h.example/", "https://h.example/\u0085"} {
		if URLFault(url) == "" {
			t.Errorf("%q is taken", url)
		}
	}
}

func TestRedactURL_ShowsNoSecret(t *testing.T) {
	for given, want := range map[string]string{
		"":                                  "",
		"https://example.com":               "https://example.com",
		"https://example.com:8443/a%2Fb/c":  "https://example.com:8443/a%2Fb/c",
		"http://u:hunter2@example.com/":     "http://…@example.com/",
		"http://hunter2@example.com":        "http://…@example.com",
		"http://[::1]:80/x?key=hunter2#x":   "http://[::1]:80/x?…",
		"u:hunter2@example.com/hook":        "(not shown: no URL)",
		"hunter2@example.com":               "(not shown: no URL)",
		"http:/u:hunter2@example.com/":      "(not shown: no URL)",
		"mailto:hunter2@example.com":        "(not shown: no URL)",
		"http://u:hunter2@exa mple.com/":    "(not shown: no URL)",
		"http://example.com/\nhunter2":      "(not shown: no URL)",
		"//u:hunter2@example.com/hook?t=u2": "//example.com/hook?…",
	} {
		if got := Redact(given); got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
}

func TestHostOf_IsOneForAllWaysToWriteAHost(t *testing.T) {
	for normal, ways := range map[string][]string{
		"example.com":           {"https://example.com/a", "https://EXAMPLE.com:8443/", "http://example.com./", "http://user:pass@Example.COM.:80/x?y", "https://ｅxample。com/", "https://example.com../"},
		"xn--bcher-kva.example": {"https://bücher.example/", "https://BÜCHER.example./", "https://xn--bcher-kva.example/", "https://XN--BCHER-KVA.EXAMPLE/"},
		"127.0.0.1": {"http://127.0.0.1/", "http://2130706433/", "http://0x7f000001/", "http://127.1/", "http://0177.0.0.1/", "http://0X7F.1/", "http://127.0.1./",
			"http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://[::ffff:127.0.0.1]/", "http://[::FFFF:7f00:1]/"},
		"2001:db8::1":         {"http://[2001:db8::1]/", "http://[2001:0DB8:0:0::1]:81/"},
		"1.2.3.4.5":           {"http://1.2.3.4.5/"},
		"256.1.1.1":           {"http://256.1.1.1/"},
		"0b11.1":              {"http://0b11.1/"},
		"10.0.0.1.nip.io":     {"http://10.0.0.1.nip.io/"},
		"":                    {"", "nothing", "http:///x", "http://%zz/"},
		"under_score.example": {"http://Under_Score.example/"},
	} {
		for _, way := range ways {
			if got := HostOf(way); got != normal {
				t.Errorf("%s: %q, want %q", way, got, normal)
			}
		}
	}
}
