package endtoend

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// portalReceiver is an account's server: wrong below /wrong, and down while it is told to be.
type portalReceiver struct {
	url string

	mu   sync.Mutex
	down bool
	got  []string // webhook-ids that it took
}

func newPortalReceiver(t *testing.T) *portalReceiver {
	t.Helper()
	r := &portalReceiver{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case r.down:
			http.Error(w, "the database <b>does not answer</b>", http.StatusInternalServerError)
		case strings.HasPrefix(request.URL.Path, "/wrong"):
			http.NotFound(w, request)
		default:
			r.got = append(r.got, request.Header.Get("webhook-id"))
		}
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *portalReceiver) set(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// took counts how often each event arrived.
func (r *portalReceiver) took() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	times := map[string]int{}
	for _, id := range r.got {
		times[id]++
	}
	return times
}

// portalWorld is a running walhook with its portal, and a browser in the session of a
// link that opens once. args are more flags of run.
func portalWorld(t *testing.T, receiver *portalReceiver, args ...string) (*world, *browser) {
	t.Helper()
	b := newBrowser(t) // skips
	db := pgtest.Database(t)
	w := newWorld(t, db, func(int) string { return "" })
	address := loopback.Address(t)
	startChild(t, append([]string{"run", "--source", db.URL, "--slot", w.slot, "--listen", address, "--admin-token", chaosOperator,
		"--allow-cidr", "127.0.0.0/8", "--retry-schedule", "1h,1h,1h"}, args...)...)
	awaitReady(t, address)
	link := mustRun(t, "portal", accountName(0), "--outbox", db.URL, "--listen", address)
	b.do(t, chromedp.Navigate(link))
	b.sees(t, "This link opens once")
	b.examine(t, "the link")
	b.click(t, "Open")
	b.sees(t, "Overview", "There is no webhook yet")
	return w, b
}

// What a support person does, as a new user, in a real browser: make a webhook that is
// wrong, see why nothing arrives, repair it, have what failed sent, and send it again.
func TestBrowser_FromTheLinkToARepairedWebhookAndAResentEvent(t *testing.T) {
	t.Parallel()
	receiver := newPortalReceiver(t)
	w, b := portalWorld(t, receiver)
	b.examine(t, "the empty overview")

	// What is wrong is said at the field.
	b.click(t, "New webhook")
	b.examine(t, "the form")
	b.fill(t, "name", "CRM")
	b.fill(t, "uri", "ftp://example.com")
	b.click(t, "Save")
	b.do(t, chromedp.WaitVisible("#uri-fault"))
	b.fill(t, "uri", receiver.url+"/wrong")
	b.click(t, "Save")
	b.sees(t, "The webhook is created")
	b.examine(t, "a webhook")

	// An event fails, and the pages say why and what to do.
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (900001, %d, '15550100')`, carrier.AccountID(0)))
	b.sees(t, "HTTP 404") // the page is live
	b.sees(t, "Retrying", "Your server refuses the event")
	b.examine(t, "a failing webhook")
	b.click(t, "Events")
	b.sees(t, "Will be retried")
	b.examine(t, "the events")
	b.click(t, "dids insert")
	b.sees(t, "Will be retried", "15550100", "HTTP 404", "webhook-id")
	b.examine(t, "a failed event")

	// The next attempt would be in an hour: a person asks for it now.
	b.click(t, "Retry now")
	b.sees(t, "It is being sent now")
	eventually(t, patience, func() bool { return strings.Count(b.text(), "Failed, will be retried") == 2 })

	// Repaired, it gets what it missed.
	b.click(t, "CRM")
	b.click(t, "Settings")
	b.fill(t, "uri", receiver.url+"/hooks")
	b.click(t, "Save")
	b.sees(t, "Saved.")
	b.sees(t, "HTTP 200")
	eventually(t, patience, func() bool { return len(receiver.took()) == 1 })

	// Send it again: the same id.
	b.click(t, "Events")
	b.sees(t, "evt_")
	b.click(t, "dids insert")
	b.sees(t, "Headers")
	b.click(t, "Send again")
	b.sees(t, "It is being sent again")
	eventually(t, patience, func() bool {
		for _, times := range receiver.took() {
			if times == 2 {
				return true
			}
		}
		return false
	})
	if n := len(receiver.took()); n != 1 {
		t.Errorf("%d events arrived, want one, twice", n)
	}
	t.Logf("%d clicks; axe-core looked at %d pages", b.clicks, len(b.pages))
}

// The receiver was down for a while: all of it is sent again after a look at how much,
// and a leaked secret is replaced.
func TestBrowser_WhatFailedInATimeIsSentAgain(t *testing.T) {
	t.Parallel()
	receiver := newPortalReceiver(t)
	w, b := portalWorld(t, receiver)
	b.click(t, "New webhook")
	b.fill(t, "name", "CRM")
	b.fill(t, "uri", receiver.url+"/hooks")
	b.click(t, "More settings")
	b.fill(t, "retries", "0")
	b.click(t, "Save")
	b.sees(t, "The webhook is created")
	receiver.set(true)
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) SELECT 900000 + n, %d, '1' FROM generate_series(1, 3) n`, carrier.AccountID(0)))
	b.sees(t, "Failed, given up")
	b.do(t, chromedp.Click(`//nav//a[.="Dead letters"]`))
	b.sees(t, "Events that are not attempted any more")
	eventually(t, patience, func() bool {
		b.do(t, chromedp.Reload())
		return strings.Count(b.text(), "dids insert") == 3
	})
	b.examine(t, "the dead letters")
	b.click(t, "CRM")
	receiver.set(false)
	b.do(t, chromedp.Click("#again button")) // counts
	b.sees(t, "Dead letters to send again: 3.")
	b.examine(t, "a count")
	b.click(t, "Send 3 events now")
	b.sees(t, "What failed is being sent again")
	eventually(t, patience, func() bool { return len(receiver.took()) == 3 })

	b.click(t, "CRM")
	b.click(t, "Replace the secret")
	b.do(t, chromedp.SetValue("#overlap", "0"), chromedp.Click(`//button[.="Replace the secret"]`))
	b.sees(t, "whsec_", "All earlier ones have expired")
	b.examine(t, "a secret")

	// What can arrive, and how to check who sent it.
	b.do(t, chromedp.Click(`//nav//a[.="Event catalogue"]`))
	b.sees(t, "voicemail_inboxes")
	b.examine(t, "the catalogue")
	b.click(t, "dids")
	b.sees(t, "Fields", "Example in JSON", "number")
	b.examine(t, "an event of the catalogue")
	b.do(t, chromedp.Click(`//nav//a[.="Signatures"]`))
	b.sees(t, "openssl", "hash_equals")
	b.examine(t, "the signatures")
	t.Logf("axe-core looked at %d pages", len(b.pages))
}

// Whoever has no JavaScript sees and does the same.
func TestBrowser_NeedsNoJavaScript(t *testing.T) {
	t.Parallel()
	receiver := newPortalReceiver(t)
	w, b := portalWorld(t, receiver)
	b.do(t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}), chromedp.Reload())
	b.click(t, "New webhook")
	b.fill(t, "name", "CRM")
	b.fill(t, "uri", receiver.url+"/hooks")
	b.click(t, "Save")
	b.sees(t, "The webhook is created")
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (900001, %d, '1')`, carrier.AccountID(0)))
	b.reloads(t, "HTTP 200")
	b.click(t, "Send a test")
	b.sees(t, "A test is one signed request")
	b.click(t, "Show the secret")
	b.sees(t, "whsec_")
	if strings.Contains(b.text(), "Copy") { // which needs JavaScript
		t.Errorf("there is a button to copy: %s", b.text())
	}
}
