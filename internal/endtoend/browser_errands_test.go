package endtoend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"walhook/internal/carrier"
)

// mostClicks is how many clicks an errand takes at most, from the one-time link on.
const mostClicks = 5

// errand is what a support person does from a one-time link, with its clicks and fields.
type errand struct {
	*browser
	api   apiClient
	began time.Time
}

// begins opens a link that opens once.
func (e *errand) begins(t *testing.T) {
	t.Helper()
	link := data(t, e.api.call(t, http.StatusCreated, "PUT", accountName(0)+"/portal", `{"data":{}}`))["url"].(string)
	e.clicks, e.began = 0, time.Now()
	e.do(t, chromedp.Navigate(link))
	e.click(t, "Open")
	e.sees(t, "Overview")
}

func (e *errand) ends(t *testing.T, what string) {
	t.Helper()
	t.Logf("%d clicks, %.1f s: %s", e.clicks, time.Since(e.began).Seconds(), what)
	if e.clicks > mostClicks {
		t.Errorf("%s takes %d clicks, want at most %d", what, e.clicks, mostClicks)
	}
}

// presses clicks a button by where it stands, which counts as any other click.
func (e *errand) presses(t *testing.T, selector string) {
	t.Helper()
	e.clicks++
	e.do(t, chromedp.Click(selector))
}

// The five errands of a support person against a receiver that fails and recovers: each
// takes few clicks, and the pages alone say where to go.
func TestBrowser_FiveErrandsOfASupportPerson(t *testing.T) {
	t.Parallel()
	receiver := newPortalReceiver(t)
	w, b := portalWorld(t, receiver)
	e := &errand{browser: b, api: apiClient{evaluated[string](t, b, "location.origin") + "/v2/accounts/", chaosOperator}}
	made := data(t, e.api.call(t, http.StatusCreated, "PUT", accountName(0)+"/webhooks", fmt.Sprintf(`{"data":{"name":"CRM","uri":%q,"retries":0}}`, receiver.url+"/hooks")))
	hook := "webhooks/" + made["id"].(string)
	buys := func(from, n int) {
		w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) SELECT n, %d, 15550000000 + n FROM generate_series(%d, %d) n`, carrier.AccountID(0), from, from+n-1))
	}
	dead := func(n int) {
		eventually(t, patience, func() bool {
			list, _ := e.api.call(t, http.StatusOK, "GET", accountName(0)+"/"+hook+"/events?state=dead&page_size=100", "")["data"].([]any)
			return len(list) >= n
		})
	}
	// From 2 to 5 the server is down.
	since := time.Now().UTC().Truncate(time.Minute)
	receiver.set(true)
	buys(900001, 3)
	dead(3)

	// Why did this number's update not reach the customer?
	e.begins(t)
	e.click(t, "Events")
	e.sees(t, "Dead letter")
	e.fill(t, "contains", "15550900002") // all that the person knows
	e.click(t, "Filter")
	e.sees(t, "Show all")
	e.click(t, "dids insert")
	e.sees(t, "15550900002", "HTTP 500", "does not answer", "Your server has an error. Look into its log")
	e.ends(t, "why did this number's update not reach the customer")

	// Send it again. The receiver works again, and the person is on the page of the event.
	receiver.set(false)
	e.click(t, "Send again")
	e.sees(t, "It is being sent again")
	eventually(t, patience, func() bool { return len(receiver.took()) == 1 })
	e.ends(t, "the same, and send it again")

	// What did we send exactly?
	e.begins(t)
	e.click(t, "dids insert") // of the latest requests
	e.sees(t, "Body as sent", "Headers", "webhook-id", "As curl", "15550900002")
	e.ends(t, "what did we send exactly")

	// The customer's server was down from 2 to 5: send all of it.
	e.begins(t)
	e.click(t, "CRM")
	e.sees(t, "Send what failed again")
	e.fill(t, "failed_since", since.Format("2006-01-02T15:04"))
	e.presses(t, "#again button")
	e.sees(t, "Dead letters to send again: 2.")
	e.click(t, "Send 2 events now")
	e.sees(t, "What failed is being sent again")
	eventually(t, patience, func() bool { return len(receiver.took()) == 3 })
	e.ends(t, "the customer's server was down: send all of it")

	// Rotate a leaked secret: the old one is of no use from now on.
	old := data(t, e.api.call(t, http.StatusOK, "GET", accountName(0)+"/"+hook+"/secret", ""))["secret"].(string)
	e.begins(t)
	e.click(t, "CRM")
	e.click(t, "Replace the secret")
	e.do(t, chromedp.SetValue("#overlap", "0"))
	e.presses(t, `//button[.="Replace the secret"]`)
	e.sees(t, "All earlier ones have expired", "whsec_")
	now := data(t, e.api.call(t, http.StatusOK, "GET", accountName(0)+"/"+hook+"/secret", ""))
	if text := b.text(); now["secret"] == old || strings.Contains(text, old) || !strings.Contains(text, now["secret"].(string)) || now["previous_secret"] != nil && now["previous_secret"] != "" {
		t.Errorf("the page does not show the new secret alone: %v", now)
	}
	e.ends(t, "rotate a leaked secret")
	for id, times := range receiver.took() {
		if times != 1 {
			t.Errorf("%s arrived %d times", id, times)
		}
	}
}
