package portal

import (
	"bytes"
	"image"
	"image/png"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestName_IsOneBoundedLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Acme Telecom": "Acme Telecom", "  Müller & Söhne ": "Müller & Söhne", "東京テレコム": "東京テレコム", strings.Repeat("é", 60): strings.Repeat("é", 60),
		"": "", "   ": "", strings.Repeat("é", 61): "", "two\nlines": "", "a\x00b": "", "a\xffb": "", "\u202egnp.exe": "", "a\u200bb": "", "tab\there": "",
		// Nothing to be seen.
		"\u3164": "", "\u2800\u2800": "", "\u00ad": "", "\u115f\u1160": "", "\uffa0": "", "\u17b4\u17b5": "", "\u034f": "", "\ufe0f": "", "\u180b": "", "\u0301": "", "\u3164 \u2800": "", "\U0001d159": "", "\U00013441": "",
		"a\u3164": "a\u3164", "😀": "😀", "…": "…", "ﷺ": "ﷺ", "𓀀": "𓀀", "é\u0301": "é\u0301",
	} {
		got, err := ParseName(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
}

func TestSupport_IsHTTPSOrOneAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"https://example.com/help": true, "https://example.com:8443/?q=a&b=%20#x": true, "mailto:help@example.com": true, "mailto:a.b+c@sub.example.com": true, "HTTPS://example.com": true,
		"": false, "javascript:alert(1)": false, "JavaScript:alert(1)": false, "java\tscript:alert(1)": false, " javascript:alert(1)": false, "data:text/html,x": false,
		"http://example.com": false, "//example.com": false, "/help": false, "example.com": false, "https://": false, "https:///x": false, "https:example.com": false,
		"https://user:password@example.com": false, "https://exa mple.com": false, `https://example.com/"onclick=x`: false, "https://example.com/<script>": false,
		"mailto:help@example.com?bcc=thief@example.org": false, "mailto:a@example.com,b@example.com": false, "mailto:": false, "mailto:@": false, "mailto:a@b@c": false,
		"mailto:a%0a@example.com": false, "https://example.com/\r\nX: y": false, "https://example.com/" + strings.Repeat("a", 500): false, "vbscript:x": false,
		"https://exämple.com": false, "https://[::1]/": false, "https://example.com/\x7f": false,
	} {
		got, err := ParseSupport(text)
		if (err == nil) != want || want == (got == "") {
			t.Errorf("%q is %q, %v", text, got, err)
		}
		if err != nil && err.Error() != "want a link such as https://example.com/help or mailto:help@example.com, of at most 500 characters" {
			t.Errorf("the error may quote %q: %v", text, err)
		}
	}
}

func aPNG(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 2, 1))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const anSVG = `<?xml version="1.0"?><!-- logo --><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><style>path{fill:red}</style><path d="M0 0h2v1H0z"/></svg>`

func TestLogo_IsKnownByItsContent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"png": {aPNG(t), "image/png"}, "jpeg": {[]byte("\xff\xd8\xff\xe0 and so on"), "image/jpeg"}, "webp": {[]byte("RIFF\x10\x00\x00\x00WEBPVP8 and so on"), "image/webp"},
		"svg": {[]byte(anSVG), "image/svg+xml"}, "html": {[]byte("<html><svg/></html>"), ""}, "text": {[]byte("logo"), ""}, "empty": {nil, ""}, "gif": {[]byte("GIF89a"), ""},
		"cut svg": {[]byte(anSVG[:100]), ""}, "two roots": {[]byte("<p/><svg/>"), ""}, "large": {append(aPNG(t), make([]byte, MaxLogo)...), ""},
	} {
		l, err := ReadLogo(c.content)
		if (err == nil) != (c.want != "") || err == nil && l.contentType != c.want {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

// configured is a world whose configuration has a brand.
func configured(t *testing.T, logo []byte) *world {
	t.Helper()
	return newWorld(t, func(c *Config) {
		accent, err := ParseAccent("#c2410c,#fdba74")
		if err != nil {
			t.Fatal(err)
		}
		c.Brand = Brand{Name: "Acme " + markup, Accent: accent, Support: "https://acme.example/help?a=1&b=2"}
		if logo != nil {
			if c.Brand.Logo, err = ReadLogo(logo); err != nil {
				t.Fatal(err)
			}
			c.Brand.LogoDark = c.Brand.Logo
		}
	})
}

func TestBrand_OfTheConfigurationIsOnEveryPage(t *testing.T) {
	w := configured(t, nil)
	hook := w.hook(t, "7")
	const theme = `<link rel="stylesheet" href="/portal/theme/c2410c-fdba74.css">`
	for who, b := range map[string]*browser{"an account": w.session(t, "7"), "an operator": w.operator(t), "a stranger": w.browser(t)} {
		for _, route := range append(slices.Clone(w.portal.routes), route{"GET", "nothing"}) {
			if route.method != http.MethodGet {
				continue
			}
			r := b.get(t, at(route.path, "7", hook.ID))
			if r.header.Get("Location") != "" {
				continue
			}
			for _, part := range []string{"Acme &lt;script&gt;", theme, `href="https://acme.example/help?a=1&amp;b=2" rel="noreferrer noopener"`, `<span class="mark" aria-hidden="true">A</span>`} {
				if !strings.Contains(r.text, part) {
					t.Errorf("%s, %q lacks %s: %s", who, route.path, part, r.text)
				}
			}
			if strings.Contains(r.text, "<script>") || strings.Contains(r.text, "<img src=x") {
				t.Errorf("%s, %q shows markup: %s", who, route.path, r.text)
			}
		}
	}
	css := w.browser(t).get(t, "theme/c2410c-fdba74.css").want(t, http.StatusOK, "--accent: #c2410c; --accent-ink: #ffffff;", "--accent: #fdba74; --accent-ink: #000000;")
	if got := css.header.Get("Content-Type"); got != "text/css; charset=utf-8" {
		t.Errorf("the stylesheet is %s", got)
	}
	icon := w.browser(t).get(t, "theme/c2410c.svg").want(t, http.StatusOK, `fill="#c2410c"`)
	if got := icon.header.Get("Content-Type"); got != "image/svg+xml" {
		t.Errorf("the icon is %s", got)
	}
}

func TestBrand_OfWalhookIsThereWithoutOne(t *testing.T) {
	w := newWorld(t)
	r := w.session(t, "7").get(t, "a/7").want(t, http.StatusOK, "<span>Webhooks</span>", "static/icon.svg")
	for _, other := range []string{"theme/", "Contact support", "/portal/logo", `class="mark"`} {
		if strings.Contains(r.text, other) {
			t.Errorf("the page has %s", other)
		}
	}
	w.browser(t).get(t, "logo").want(t, http.StatusNotFound)
}

func TestTheme_IsMadeOfColoursAlone(t *testing.T) {
	w := newWorld(t)
	b := w.browser(t)
	for _, path := range []string{"theme/red.css", "theme/c2410c%3B%7Dbody%7B.css", "theme/c24.css", "theme/c2410c-.css", "theme/c2410c-fff.css", "theme/c2410c.js", "theme/c2410c", "theme/.css",
		"theme/c2410c.css.css", "theme/c2410c-fdba74-ffffff.css", "theme/%23c2410.css", "theme/c2410c,%23ffffff.css"} {
		b.get(t, path).want(t, http.StatusNotFound)
	}
}

func TestLogo_IsServedSoThatItCanDoNothing(t *testing.T) {
	script := strings.Replace(anSVG, "<style>", `<script>alert(document.cookie)</script><style>`, 1)
	w := configured(t, []byte(script))
	b := w.session(t, "7")
	b.get(t, "a/7").want(t, http.StatusOK, `<img class="logo" src="/portal/logo?v=`, `<source srcset="/portal/logo/dark?v=`, `alt="Acme &lt;script&gt;`)
	for _, path := range []string{"logo", "logo/dark", "logo?v=1"} {
		r := w.browser(t).get(t, path).want(t, http.StatusOK)
		if r.text != script {
			t.Errorf("%s is another file", path)
		}
		if got := r.header.Get("Content-Security-Policy"); got != "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'" {
			t.Errorf("%s has the policy %s", path, got)
		}
		if r.header.Get("X-Content-Type-Options") != "nosniff" || r.header.Get("Content-Type") != "image/svg+xml" {
			t.Errorf("%s: %v", path, r.header)
		}
	}
}
