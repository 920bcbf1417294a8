package portal

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestFrameAncestors_AreOriginsAlone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://my.example.com": "https://my.example.com", "https://My.Example.com/": "https://my.example.com", "https://my.example.com:8443": "https://my.example.com:8443",
		"https://a.example https://b.example https://A.example": "https://a.example https://b.example",
		"*": "", "https://*.example.com": "", "https://*": "", "'self'": "", "'none'": "", "http://my.example.com": "", "my.example.com": "", "https:": "", "https://": "", "//my.example.com": "",
		"https://my.example.com/path": "", "https://my.example.com?x": "", "https://my.example.com?": "", "https://my.example.com#": "", "https://user@my.example.com": "",
		"https://my.example.com;script-src": "", "https://my.example.com\r\nSet-Cookie:": "", "https://my.example.com:0": "", "https://my.example.com:99999": "", "https://my.example.com:": "https://my.example.com",
		"https://my.exämple.com": "", "data:": "", "https:my.example.com": "", "https://my_example.com'": "", "https://[::1]": "",
	} {
		origins, err := ParseFrameAncestors(strings.Split(text, " "))
		if got := strings.Join(origins, " "); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	many := make([]string, maxFrameAncestors+1)
	for i := range many {
		many[i] = "https://" + strings.Repeat("a", i+1) + ".example"
	}
	if _, err := ParseFrameAncestors(many); err == nil {
		t.Error("any number of origins")
	}
}

func TestFrames_AreForOriginsOfTheSettingAlone(t *testing.T) {
	for name, c := range map[string]struct {
		ancestors    []string
		want, option string
	}{
		"none":        {nil, "frame-ancestors 'none'", "DENY"},
		"two origins": {[]string{"https://my.example.com", "https://b.example:8443"}, "frame-ancestors https://my.example.com https://b.example:8443", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.FrameAncestors = c.ancestors })
			hook := w.hook(t, "7")
			for who, b := range map[string]*browser{"an account": w.session(t, "7"), "a stranger": w.browser(t)} {
				for _, route := range append(slices.Clone(w.portal.routes), route{"GET", "static/app.css"}, route{"GET", "nothing"}) {
					if route.method != http.MethodGet {
						continue
					}
					r := b.get(t, at(route.path, "7", hook.ID))
					if policy := r.header.Get("Content-Security-Policy"); !strings.HasSuffix(policy, "; "+c.want) || !strings.HasPrefix(policy, "default-src 'none'; ") {
						t.Errorf("%s, %q has the policy %s", who, route.path, policy)
					}
					if got := strings.Join(r.header.Values("X-Frame-Options"), ","); got != c.option {
						t.Errorf("%s, %q has X-Frame-Options %q", who, route.path, got)
					}
				}
			}
		})
	}
}
