package endtoend

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"walhook/internal/carrier"
)

// shotsEnv names a folder for pictures of the pages, for people.
const shotsEnv = "TEST_SHOTS"

// brandLogo is a wordmark that would like to run a script.
const brandLogo = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 148 32" onload="document.documentElement.setAttribute('data-ran','1')">
<style>text { fill: #1b2540; } @media (prefers-color-scheme: dark) { text { fill: #fff; } }</style>
<script>document.documentElement.setAttribute('data-ran','1')</script>
<circle cx="16" cy="16" r="13" fill="#e4572e"/><path d="M10 17l4 5 8-11" fill="none" stroke="#fff" stroke-width="3"/>
<text x="38" y="22" font-family="sans-serif" font-weight="700" font-size="18">Northwind</text></svg>`

// in shows the page as a reader with this scheme of colours, light or dark, sees it.
func (b *browser) in(t *testing.T, scheme string) {
	t.Helper()
	b.do(t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

// shoot keeps pictures of the page, wide and narrow, where somebody asked for them.
func (b *browser) shoot(t *testing.T, name string) {
	t.Helper()
	folder := os.Getenv(shotsEnv)
	if folder == "" {
		return
	}
	for size, width := range map[string]int64{"wide": 1280, "narrow": 360} {
		b.do(t, chromedp.EmulateViewport(width, 900))
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		cancel()
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name+"-"+size+".png"), picture, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.do(t, chromedp.EmulateViewport(1280, 900))
}

// colours are those that the browser computed for an element: of its text and behind it.
func (b *browser) colours(t *testing.T, selector string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`(e => e ? getComputedStyle(e).color + " on " + getComputedStyle(e).backgroundColor : "none")(document.querySelector(%q))`, selector)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A portal with a brand, light and dark: the colours are there and can be read, also where
// the accent is one that cannot be read as text.
func TestBrowser_ABrandCanBeReadInLightAndDark(t *testing.T) {
	t.Parallel()
	logo := filepath.Join(t.TempDir(), "logo.svg")
	if err := os.WriteFile(logo, []byte(brandLogo), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args        []string
		light, dark string // of a button
	}{
		"a logo":   {[]string{"--portal-name", "Northwind", "--portal-logo", logo, "--portal-accent", "#e4572e"}, "rgb(0, 0, 0) on rgb(228, 87, 46)", "rgb(0, 0, 0) on rgb(233, 119, 86)"},
		"a name":   {[]string{"--portal-name", "Émile & Sons Telecommunications", "--portal-accent", "#0f766e,#5eead4", "--portal-support", "mailto:help@example.com"}, "rgb(255, 255, 255) on rgb(15, 118, 110)", "rgb(0, 0, 0) on rgb(94, 234, 212)"},
		"a yellow": {[]string{"--portal-name", "Yellow Phone", "--portal-accent", "#ffe600", "--portal-support", "https://example.com/help"}, "rgb(0, 0, 0) on rgb(255, 230, 0)", "rgb(0, 0, 0) on rgb(255, 230, 0)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := newPortalReceiver(t)
			w, b := portalWorld(t, receiver, c.args...)
			b.click(t, "New webhook")
			b.fill(t, "name", "CRM")
			b.fill(t, "uri", receiver.url+"/wrong")
			b.click(t, "Save")
			b.sees(t, "The webhook is created")
			w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (900001, %d, '15550100')`, carrier.AccountID(0)))
			b.sees(t, "HTTP 404")
			look := func(page string) {
				for scheme, want := range map[string]string{"light": c.light, "dark": c.dark} {
					b.in(t, scheme)
					if got := b.colours(t, "main .button:not(.quiet), main button:not(.quiet)"); got != want && got != "none" {
						t.Errorf("%s, %s: a button is %s, want %s", page, scheme, got, want)
					}
					b.examine(t, page+" "+scheme)
					b.shoot(t, strings.ReplaceAll(name+" "+page+" "+scheme, " ", "-"))
				}
			}
			look("webhook")
			b.click(t, "Settings")
			b.sees(t, "Save")
			look("form")
			b.do(t, chromedp.Click(`header a.brand`))
			b.sees(t, "Overview", "Retrying")
			if got := b.colours(t, "main .button:not(.quiet)"); got == "none" {
				t.Error("the overview has no button")
			}
			look("overview")
			at, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href`))
			if err != nil {
				t.Fatal(err)
			}
			b.do(t, chromedp.Navigate(at+"/nothing"))
			b.sees(t, "This did not work")
			look("error")
			if name == "a logo" {
				b.wantLogoDoesNothing(t, at)
			}
		})
	}
}

// wantLogoDoesNothing opens the logo by its address, where a script in it could run.
func (b *browser) wantLogoDoesNothing(t *testing.T, at string) {
	t.Helper()
	address, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	address.Path = "/portal/logo"
	b.do(t, chromedp.Navigate(address.String()))
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	ran, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.documentElement.localName + " " + document.documentElement.getAttribute("data-ran")`))
	if err != nil || ran != "svg null" {
		t.Errorf("the logo's script ran: %q, %v", ran, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) == 0 {
		t.Error("the browser does not say that it blocked the script")
	}
	b.faults = nil
}
