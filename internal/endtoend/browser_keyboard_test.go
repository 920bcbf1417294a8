package endtoend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"walhook/internal/carrier"
)

// focusJS tells what has the focus, a field by its id and all else by its text, and
// whether a person sees that it has it.
const focusJS = `(() => {
	const e = document.activeElement;
	if (!e || e === document.body) return "nothing";
	const style = getComputedStyle(e), at = e.getBoundingClientRect();
	const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && at.width > 0 && at.bottom > 0 && at.top < innerHeight && at.right > 0 && at.left < innerWidth;
	return (seen ? "" : "unseen: ") + (e.matches("input, select, textarea") && e.id ? "#" + e.id : e.innerText.trim().replace(/\s+/g, " "));
})()`

// mostTabs is how many presses of the Tab key lead to what is wanted, at most.
const mostTabs = 60

// keyboard is a person who uses no mouse.
type keyboard struct {
	*errand
	keys int
}

// press presses keys, and counts them.
func (k *keyboard) press(t *testing.T, keys string) {
	t.Helper()
	k.keys += len([]rune(keys))
	k.do(t, chromedp.KeyEvent(keys))
}

// to goes to an element with the Tab key. Each stop on the way can be seen.
func (k *keyboard) to(t *testing.T, what string) {
	t.Helper()
	var stops []string
	for range mostTabs {
		k.press(t, kb.Tab)
		at := evaluated[string](t, k.browser, focusJS)
		if stops = append(stops, at); strings.HasPrefix(at, "unseen: ") {
			t.Errorf("the focus is not seen on the way to %s: %s", what, at)
		}
		if at == what {
			return
		}
	}
	t.Fatalf("the Tab key does not lead to %s: %q", what, stops)
}

// past goes past the navigation to an element.
func (k *keyboard) past(t *testing.T, what string) {
	t.Helper()
	k.to(t, "Skip to the content")
	k.press(t, kb.Enter)
	k.to(t, what)
}

// enters goes past the navigation to an element, and presses Enter.
func (k *keyboard) enters(t *testing.T, what string, sees ...string) {
	t.Helper()
	k.past(t, what)
	k.press(t, kb.Enter)
	k.sees(t, sees...)
}

// follows opens a link that opens once. Its button has the focus from the start.
func (k *keyboard) follows(t *testing.T) {
	t.Helper()
	link := data(t, k.api.call(t, http.StatusCreated, "PUT", accountName(0)+"/portal", `{"data":{}}`))["url"].(string)
	k.keys = 0
	k.do(t, chromedp.Navigate(link))
	k.sees(t, "This link opens once")
	k.press(t, kb.Enter)
	k.sees(t, "Overview")
}

// The five errands of a support person without a mouse: the keyboard leads to everything,
// and the focus can be seen all the way.
func TestBrowser_TheErrandsNeedNoMouse(t *testing.T) {
	t.Parallel()
	receiver := newPortalReceiver(t)
	w, b := portalWorld(t, receiver)
	k := &keyboard{errand: &errand{browser: b, api: apiClient{evaluated[string](t, b, "location.origin") + "/v2/accounts/", chaosOperator}}}
	hook := accountName(0) + "/webhooks/" + data(t, k.api.call(t, http.StatusCreated, "PUT", accountName(0)+"/webhooks", fmt.Sprintf(`{"data":{"name":"CRM","uri":%q,"retries":0}}`, receiver.url+"/hooks")))["id"].(string)
	receiver.set(true)
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) SELECT n, %d, 15550000000 + n FROM generate_series(900001, 900003) n`, carrier.AccountID(0)))
	eventually(t, patience, func() bool {
		list, _ := k.api.call(t, http.StatusOK, "GET", hook+"/events?state=dead", "")["data"].([]any)
		return len(list) == 3
	})

	k.follows(t)
	k.enters(t, "Events", "Dead letter")
	k.past(t, "#contains")
	k.press(t, "15550900002"+kb.Enter)
	k.sees(t, "Show all")
	k.enters(t, "dids insert", "15550900002", "HTTP 500", "Your server has an error")
	t.Logf("%d keys: why did this number's update not reach the customer, and what did we send exactly", k.keys)
	receiver.set(false)
	k.enters(t, "Send again", "It is being sent again")
	eventually(t, patience, func() bool { return len(receiver.took()) == 1 })
	t.Logf("%d keys: the same, and send it again", k.keys)

	k.follows(t)
	k.enters(t, "CRM", "Send what failed again")
	k.enters(t, "Count first", "Dead letters to send again: 2.")
	k.to(t, "Send 2 events now") // the answer has the focus
	k.press(t, kb.Enter)
	k.sees(t, "What failed is being sent again")
	eventually(t, patience, func() bool { return len(receiver.took()) == 3 })
	t.Logf("%d keys: the customer's server was down: send all of it", k.keys)

	k.follows(t)
	k.enters(t, "CRM", "Replace the secret")
	k.enters(t, "Replace the secret", "The old secret also signs for")
	k.to(t, "#overlap")
	k.press(t, kb.End)
	k.to(t, "Replace the secret")
	k.press(t, kb.Enter)
	k.sees(t, "All earlier ones have expired", "whsec_")
	t.Logf("%d keys: rotate a leaked secret", k.keys)
}
