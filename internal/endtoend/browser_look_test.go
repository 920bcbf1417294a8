package endtoend

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	cdpnetwork "github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// mostBytes bounds what a browser transfers for a page that it opens for the first time.
const mostBytes = 100 << 10

// The widths at which people look at pages: a small phone, and a large screen.
var lookedAt = []struct {
	name  string
	width int64
}{{"wide", 1600}, {"narrow", 360}}

const (
	// spillingJS names what is wider than its place.
	spillingJS = `(() => {
		const wide = e => e.scrollWidth > e.clientWidth + 1, bad = [];
		if (wide(document.documentElement)) bad.push("the page");
		for (const e of document.querySelectorAll("header, nav, main, footer, .card, .scroll, pre, dl, form, td, dd, li, p, select"))
			if (e.clientWidth && wide(e)) bad.push(e.localName + "." + e.className + " " + e.innerText.slice(0, 60));
		return bad.join("; ");
	})()`

	// frameJS tells the page's title and headings of the first rank.
	frameJS = `document.title + " | " + [...document.querySelectorAll("h1")].map(e => e.innerText.trim()).join(" | ")`

	// weightJS counts what came over the network for the page itself.
	weightJS = `[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource").filter(e => e.initiatorType !== "xmlhttprequest")]
		.reduce((sum, e) => sum + e.transferSize, 0)`
)

// evaluated is what a script of the test finds on the page.
func evaluated[T any](t *testing.T, b *browser, script string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// opens opens a page as somebody does who has never seen the portal: nothing is cached.
func (b *browser) opens(t *testing.T, address string) {
	t.Helper()
	b.do(t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, cdpnetwork.SetCacheDisabled, cdpnetwork.SetCacheDisabledParams{CacheDisabled: true})
		return err
	}), chromedp.Navigate(address))
	if n := evaluated[float64](t, b, weightJS); n > mostBytes || n < 1000 {
		t.Errorf("%s takes %.0f bytes, want at most %d", address, n, mostBytes)
	} else {
		t.Logf("%5.1f KB %s", n/1024, address)
	}
}

// looks holds the page that is open to what each page promises, in light and dark, wide
// and narrow: it has a title and one heading, nothing is cut off or wider than its place,
// and axe-core finds nothing serious. It takes a picture of each.
func (b *browser) looks(t *testing.T, name string) {
	t.Helper()
	title, headings, _ := strings.Cut(evaluated[string](t, b, frameJS), " | ")
	if own, _, _ := strings.Cut(title, " · "); own == "" || headings == "" || strings.Contains(headings, " | ") {
		t.Errorf("%s has the title %q and the headings %q", name, title, headings)
	}
	for _, at := range lookedAt {
		b.do(t, chromedp.EmulateViewport(at.width, 900))
		if bad := evaluated[string](t, b, spillingJS); bad != "" {
			t.Errorf("%s, %d pixels wide: what is wider than its place: %s", name, at.width, bad)
		}
		for _, scheme := range []string{"light", "dark"} {
			b.in(t, scheme)
			if (scheme == "dark") == (at.name == "wide") { // each width and each scheme once
				b.examine(t, fmt.Sprintf("%s, %s, %s", name, scheme, at.name))
			}
			b.picture(t, fmt.Sprintf("%s-%s-%s", strings.ReplaceAll(name, " ", "_"), scheme, at.name))
		}
	}
	b.in(t, "light")
	b.do(t, chromedp.EmulateViewport(1280, 900))
}

// picture keeps a picture of the whole page, where somebody asked for it.
func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	folder := os.Getenv(shotsEnv)
	if folder == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
