package catalog

import (
	"strings"
	"testing"
)

func TestMask_AURLKeepsItsPasswordAndQueryToItself(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                     "",
		"https://example.com/hook":             "https://example.com/hook",
		"https://example.com:8443/@me/hook":    "https://example.com:8443/@me/hook",
		"http://[2001:db8::1]:80/@x":           "http://[2001:db8::1]:80/@x",
		"https://u:hunter2@example.com/hook":   "https://…@example.com/hook",
		"https://hunter2@example.com":          "https://…@example.com",
		"https://u:p@x:hunter2@example.com/":   "https://…@example.com/",
		"https://u:hun/ter2@example.com/x":     "https://…@example.com/x",
		"https://example.com/h?token=hunter2":  "https://example.com/h?…",
		"https://example.com/h#hunter2":        "https://example.com/h#…",
		"https://u:hunter2@h/?hunter2#hunter2": "https://…@h/?…#…",
		"HTTPS://u:hunter2@h/":                 "HTTPS://…@h/",
		`https:\\u:hunter2@h/`:                 "…@h/",
		"u:hunter2@example.com/hook":           "…@example.com/hook",
		"https://u:hunter2%zz@h/":              "https://…@h/",
		"//u:hunter2@h/x":                      "//…@h/x",
		"//h/x?hunter2":                        "//h/x?…",
		"https://h?hunter2":                    "https://h?…",
		"https://u:hunter2@h?hunter2":          "https://…@h?…",
		"https://u:hunter2@h#hunter2":          "https://…@h#…",
		"hTTp://u:hunter2@h:80":                "hTTp://…@h:80",
		"u:hunter2//x@h":                       "…@h",
		"https:/u:hunter2@h/":                  "…@h/",
		" https://u:hunter2@h/ ?hunter2":       " https://…@h/ ?…",
	} {
		got := maskURL(text)
		if got != want || maskURL(got) != got {
			t.Errorf("%s is shown as %s, and that as %s; want %s", text, got, maskURL(got), want)
		}
	}
}

func TestMask_OfWhateverAColumnHolds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		json, want string
		isURL      bool
	}{
		{`"https://u:hunter2@h/?hunter2"`, `"https://…@h/?…"`, true},
		{`"https:\/\/u:hunter2\u0040h\/?\"hunter2"`, `"https://…@h/?…"`, true},
		{`["https://u:hunter2@h/","x"]`, `["https://…@h/","x"]`, true},
		{`{"a?b" : {"url":"https://h/?hunter2"},"n":1.50}`, `{"a?b" : {"url":"https://h/?…"},"n":1.50}`, true},
		{`null`, `null`, true},
		{`12.50`, `12.50`, true},
		{`"https://h/?lang=en"`, `"https://h/?lang=en"`, false},
		{`"https://u:hunter2@h/?hunter2"`, `"https://…@h/?…"`, false},
		{`"me@example.com"`, `"me@example.com"`, false},
		{`"//u:hunter2@h/x"`, `"//…@h/x"`, false},
		{`"HTTPS://u:hun/ter2@h"`, `"HTTPS://…@h"`, false},
		{`"see https://u:hunter2@h/?hunter2 or <ftp://hunter2@h>"`, `"see https://…@h/?… or <ftp://…@h>"`, false},
		{`"a // b@c"`, `"a // b@c"`, false},
		{`"https://h:80/@me?x"`, `"https://h:80/@me?x"`, false},
		{`"see https://h/ or me@example.com?"`, `"see https://h/ or me@example.com?"`, false},
		{`"\u00e9?"`, `"\u00e9?"`, false},
	} {
		got := string(maskJSON([]byte(`{"x":`+c.json), 5, c.isURL))
		if got != `{"x":`+c.want {
			t.Errorf("%s becomes %s, want %s", c.json, got, c.want)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add("https://u:p@h/?q#f")
	f.Fuzz(func(t *testing.T, text string) {
		shown := maskURL(text)
		if maskURL(shown) != shown {
			t.Errorf("%q, then %q", shown, maskURL(shown))
		}
		if _, query, _ := strings.Cut(shown, "?"); query != "" && !strings.HasPrefix(query, "…") {
			t.Errorf("query in %q", shown)
		}
	})
}

func TestMask_WhichColumnsAreURLs(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte(`
account: {table: customers, id: id, url: callback}
schemas:
  customers: {table: customers, owner: id, fields: {id: id, callback: callback, sms_url: sms_target, home: Home_URI, note: note}}
  other: {table: other, owner: id, fields: [id, url]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for column, want := range map[string]bool{
		"callback": true, "sms_target": true, "Home_URI": true, "sms_post_url": true, "hook_urls": true, "note": false, "id": false, "curl_options": false,
		"url": true, "URL2": true, "url_old": true, "sms_url_2": true, "smsUrlOld": true, "smsURLOld": true, "post-uris.x": true, "weburl": true, "security": false, "burly": false, "curlOptions": false,
	} {
		if c.isURLColumn(column) != want {
			t.Errorf("%s: %t", column, !want)
		}
	}
}
