package endtoend

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"

	"walhook/internal/carrier"
)

// standingJS tells the badge in the title of a page, the note below it and its buttons.
const standingJS = `["#standing", "#why", "#acts"].map(id => document.querySelector(id)?.innerText.replace(/\s+/g, " ").trim()).join(" | ")`

// stands waits until badge, note and buttons at the top of the page that is open are as
// wanted. The page may not be loaded again meanwhile.
func (b *browser) stands(t *testing.T, want string, act func()) {
	t.Helper()
	evaluated[bool](t, b, `window.stays = true`)
	act()
	eventually(t, patience, func() bool { return evaluated[string](t, b, standingJS) == want })
	if !evaluated[bool](t, b, `window.stays === true`) {
		t.Error("the page was loaded again")
	}
}

// Badge, note and buttons at the top of a page follow what becomes of a webhook and of an
// event, and not only the lists below them.
func TestBrowser_TheTopOfAPageFollowsWhatHappens(t *testing.T) {
	t.Parallel()
	receiver := newPortalReceiver(t)
	w, b := portalWorld(t, receiver)
	api := apiClient{evaluated[string](t, b, "location.origin") + "/v2/accounts/", chaosOperator}
	hook := accountName(0) + "/webhooks/" + data(t, api.call(t, http.StatusCreated, "PUT", accountName(0)+"/webhooks", fmt.Sprintf(`{"data":{"name":"CRM","uri":%q}}`, receiver.url+"/hooks")))["id"].(string)
	fails := func(id int) (event string) {
		receiver.set(true)
		w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, %d, '1')`, id, carrier.AccountID(0)))
		eventually(t, patience, func() bool {
			list, _ := api.call(t, http.StatusOK, "GET", hook+"/events?state=retry", "")["data"].([]any)
			if len(list) == 1 {
				event = list[0].(map[string]any)["event_id"].(string)
			}
			return event != ""
		})
		return event
	}
	recovers := func() {
		receiver.set(false)
		api.call(t, http.StatusAccepted, "POST", hook+"/retry", `{"data":{}}`)
	}
	const why = "Your server has an error. Look into its log; its answer may say more."
	page := evaluated[string](t, b, "location.origin") + "/portal/a/" + hook

	fails(900001)
	b.do(t, chromedp.Navigate(page))
	b.sees(t, "Send waiting events now")
	b.stands(t, "✓ Delivering |  | Send a test Disable", recovers)

	event := fails(900002)
	b.do(t, chromedp.Navigate(page+"/events/"+event))
	b.sees(t, "Will be retried", why, "Retry now")
	b.stands(t, "✓ Delivered |  | Send again Events of this record", recovers)

	// Sent again, its page stays, and shows the second request.
	b.click(t, "Send again")
	b.sees(t, "It is being sent again")
	b.stands(t, "✓ Delivered |  | Send again Events of this record", func() {
		eventually(t, patience, func() bool {
			return evaluated[float64](t, b, `document.querySelectorAll(".tries li.good").length`) == 2
		})
	})
}
