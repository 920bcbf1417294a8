package endtoend

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// framing is a proxy with TLS in front of the portal at portal.carrier.test, and pages of
// all other hosts that show the portal in a frame.
type framing struct {
	port   string
	portal string // with the path

	mu     sync.Mutex
	pages  []string // that were asked for in a frame: the status, and whether with a cookie
	styles int      // how often a stylesheet was asked for
}

func newFraming(t *testing.T, walhook string) *framing {
	t.Helper()
	f := &framing{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: walhook}) },
		ModifyResponse: func(r *http.Response) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if r.Request.Header.Get("Sec-Fetch-Dest") == "iframe" {
				_, err := r.Request.Cookie("walhook_portal")
				f.pages = append(f.pages, fmt.Sprintf("%d, cookie %v", r.StatusCode, err == nil))
			}
			if strings.HasSuffix(r.Request.URL.Path, ".css") {
				f.styles++
			}
			r.Header.Set("Cache-Control", "no-store") // each page asks for its stylesheet
			return nil
		},
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "portal.") {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><link rel="icon" href="data:,"><p id="is">waits</p><iframe onload="document.getElementById('is').textContent='the frame is there'" src="%sa/%s"></iframe>`, f.portal, accountName(0))
	}))
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	f.port = address.Port()
	f.portal = "https://portal.carrier.test:" + f.port + "/portal/"
	return f
}

// since returns what was asked for after the last call.
func (f *framing) since() (pages string, styles int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pages, styles = strings.Join(f.pages, "; "), f.styles
	f.pages, f.styles = nil, 0
	return pages, styles
}

// What docs/PORTAL.md says of frames, in a browser: a page of the same site shows the
// portal, one of another site shows it without a session, one that is not named not at all.
func TestBrowser_AFrameIsForOriginsOfTheSameSite(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1"), chromedp.Flag("ignore-certificate-errors", true)) // skips
	db := pgtest.Database(t)
	w := newWorld(t, db, func(int) string { return "" })
	address := loopback.Address(t)
	f := newFraming(t, address)
	startChild(t, "run", "--source", db.URL, "--slot", w.slot, "--listen", address, "--portal-url", f.portal,
		"--portal-frame-ancestors", "https://my.carrier.test:"+f.port+",https://my.other.test:"+f.port)
	awaitReady(t, address)
	b.do(t, chromedp.Navigate(mustRun(t, "portal", accountName(0), "--outbox", db.URL, "--portal-url", f.portal)))
	b.click(t, "Open")
	b.sees(t, "Overview")
	for _, c := range []struct {
		host, pages string
		shown       bool
	}{
		{"my.carrier.test", "200, cookie true", true},
		{"my.other.test", "401, cookie false", true},
		{"new.carrier.test", "200, cookie true", false},
		{"carrier.test.other.test", "401, cookie false", false},
	} {
		f.since()
		b.do(t, chromedp.Navigate("https://"+c.host+":"+f.port+"/"))
		b.sees(t, "the frame is there")
		if pages, styles := f.since(); pages != c.pages || (styles > 0) != c.shown {
			t.Errorf("in a page of %s the portal answered %q, and the browser asked for %d stylesheets, want %q and shown: %v", c.host, pages, styles, c.pages, c.shown)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	blocked := 0
	for _, fault := range b.faults {
		if strings.Contains(fault, "frame-ancestors") {
			blocked++
		} else {
			t.Errorf("the browser: %s", fault)
		}
	}
	if blocked == 0 {
		t.Error("the browser does not say that it blocked a frame")
	}
	b.faults = nil
}
