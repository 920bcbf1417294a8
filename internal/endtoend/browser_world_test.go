package endtoend

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium finds a browser, or skips.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("SKIP: no Chromium is on this machine (Debian: apt-get install chromium): no page was seen in a browser")
	return ""
}

// browser is a window of a real browser.
type browser struct {
	ctx context.Context

	mu     sync.Mutex
	faults []string // what the page itself complained of
	pages  []string // whose accessibility was examined
	clicks int
}

func newBrowser(t *testing.T, more ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1280, 900), chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(patience))
	allocated, cancel := chromedp.NewExecAllocator(t.Context(), append(options, more...)...)
	ctx, closeWindow := chromedp.NewContext(allocated)
	b := &browser{ctx: ctx}
	t.Cleanup(func() {
		closeWindow()
		cancel()
	})
	if err := chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.faults = append(b.faults, e.ExceptionDetails.Text)
		case *log.EventEntryAdded: // also a violation of the policy; a status that a test asks for is none
			if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
				b.faults = append(b.faults, e.Entry.Text)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.wantNoFaults(t) })
	return b
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatalf("%v, on the page:\n%s", err, b.text())
	}
}

// text is what a person reads on the page.
func (b *browser) text() (text string) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, _ = chromedp.Run(ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`)) // between two pages there is none
	return text
}

// sees waits until the page shows all of these.
func (b *browser) sees(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		deadline := time.Now().Add(patience)
		for !strings.Contains(b.text(), part) {
			if time.Now().After(deadline) {
				t.Fatalf("the page does not show %q:\n%s", part, b.text())
			}
			linger(t.Context(), 50*time.Millisecond)
		}
	}
}

// reloads loads the page again until it shows a text, for pages that are not live.
func (b *browser) reloads(t *testing.T, part string) {
	t.Helper()
	eventually(t, patience, func() bool {
		b.do(t, chromedp.Reload())
		return strings.Contains(b.text(), part)
	})
}

// click clicks what shows a text: a link, a button or the summary of details.
func (b *browser) click(t *testing.T, text string) {
	t.Helper()
	b.clicks++
	path := fmt.Sprintf(`//main//*[self::a or self::button or self::summary][normalize-space(.)=%q]`, text)
	b.do(t, chromedp.Click(path))
}

func (b *browser) fill(t *testing.T, id, text string) {
	t.Helper()
	b.do(t, chromedp.SetValue("#"+id, text))
}

// axeEnv names a file of axe-core, which .ci/axe fetches.
const axeEnv = "TEST_AXE"

// examine has axe-core look at the page: nothing serious may be wrong for people who
// use no mouse or see no colours.
func (b *browser) examine(t *testing.T, page string) {
	t.Helper()
	file := os.Getenv(axeEnv)
	if file == "" {
		return
	}
	script, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[any](string(script)+";null")); err != nil {
		t.Fatal(err)
	}
	result, err := chromedp.Run(ctx, chromedp.Evaluate[string](`axe.run().then(r => JSON.stringify(r.violations.map(
		v => ({impact: v.impact, id: v.id, help: v.help, html: v.nodes.map(n => n.html)}))))`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	var found []struct {
		Impact, ID, Help string
		HTML             []string
	}
	if err := json.Unmarshal([]byte(result), &found); err != nil {
		t.Fatal(err)
	}
	for _, one := range found {
		if one.Impact == "serious" || one.Impact == "critical" {
			t.Errorf("%s: %s (%s, %s): %v", page, one.Help, one.ID, one.Impact, one.HTML)
		}
	}
	b.pages = append(b.pages, page)
}

// wantNoFaults says what the page itself complained of, such as what the policy forbids.
func (b *browser) wantNoFaults(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		t.Errorf("the browser: %s", fault)
	}
}
