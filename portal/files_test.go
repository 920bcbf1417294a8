package portal

import (
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// What every page needs is small on its way and kept, and is the same file packed or not.
func TestFiles_ArePackedForWhoTakesIt(t *testing.T) {
	w := newWorld(t)
	b := w.browser(t)
	for _, name := range []string{"app.css", "app.js", "htmx.min.js", "icon.svg"} {
		want, err := os.ReadFile("static/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for accepted, packed := range map[string]bool{"gzip": true, "br;q=1.0, GZIP ; q=0.8, *;q=0.1": true, "identity": false, "br": false, "gzip;q=0": false, "gzip; q=0.0": false, "gzip;q=0.001": true} {
			r := b.do(t, http.MethodGet, "static/"+name+"?v="+w.portal.pages.files[name].hash, nil, "Accept-Encoding", accepted).want(t, http.StatusOK)
			if got := r.header.Get("Content-Encoding") == "gzip"; got != packed {
				t.Errorf("%s for %q: packed %v", name, accepted, got)
				continue
			}
			got := r.text
			if packed {
				unzip, err := gzip.NewReader(strings.NewReader(r.text))
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(unzip)
				if err != nil {
					t.Fatal(err)
				}
				got = string(text)
			}
			if got != string(want) || !strings.Contains(r.header.Get("Cache-Control"), "immutable") || r.header.Get("Vary") != "Accept-Encoding" || r.header.Get("Content-Type") == "" {
				t.Errorf("%s for %q: %d bytes, headers %v", name, accepted, len(got), r.header)
			}
		}
		if r := b.get(t, "static/"+name); strings.Contains(r.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s without its hash is kept for ever", name)
		}
	}
	for _, path := range []string{"static/", "static/README.md", "static/htmx.LICENSE", "static/../portal.go", "static/%2e%2e/portal.go"} {
		if r := b.get(t, path); r.status == http.StatusOK {
			t.Errorf("%s is served", path)
		}
	}
}

// A page is never packed: what it says beside a part that somebody chose must not show in
// its length.
func TestFiles_PagesAreNotPacked(t *testing.T) {
	w := newWorld(t)
	if r := w.session(t, "7").do(t, http.MethodGet, "a/7", nil, "Accept-Encoding", "gzip"); r.header.Get("Content-Encoding") != "" {
		t.Errorf("a page is packed: %v", r.header)
	}
}
