package outbox

import "testing"

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
