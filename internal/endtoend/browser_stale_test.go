package endtoend

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	cdpnetwork "github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// offline takes the network from a window, or gives it back.
func (b *browser) offline(t *testing.T, is bool) {
	t.Helper()
	rules := []*cdpnetwork.Conditions{}
	if is {
		rules = append(rules, &cdpnetwork.Conditions{Offline: true, DownloadThroughput: -1, UploadThroughput: -1})
	}
	b.do(t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, cdpnetwork.EmulateNetworkConditionsByRule, cdpnetwork.EmulateNetworkConditionsByRuleParams{MatchedNetworkConditions: rules})
		return err
	}))
}

// A page that follows what happens says so when it no longer can, and since when, until it
// can again.
func TestBrowser_APageThatIsNotRefreshedSaysSo(t *testing.T) {
	t.Parallel()
	receiver := newPortalReceiver(t)
	_, b := portalWorld(t, receiver)
	origin := evaluated[string](t, b, "location.origin")
	api := apiClient{origin + "/v2/accounts/", chaosOperator}
	hook := accountName(0) + "/webhooks/" + data(t, api.call(t, http.StatusCreated, "PUT", accountName(0)+"/webhooks", fmt.Sprintf(`{"data":{"name":"CRM","uri":%q}}`, receiver.url)))["id"].(string)
	const says = "This page could not be refreshed since "
	b.do(t, chromedp.Navigate(origin+"/portal/a/"+hook))
	b.sees(t, "Ready")
	refreshes := func() { // and not only the notice goes
		evaluated[bool](t, b, `document.querySelector("#live").seen = true`)
		eventually(t, patience, func() bool { return evaluated[bool](t, b, `document.querySelector("#live").seen !== true`) })
		if strings.Contains(b.text(), says) {
			t.Errorf("a page that is refreshed says that it is not: %s", b.text())
		}
	}
	refreshes()
	b.offline(t, true)
	b.sees(t, says)
	if !regexp.MustCompile(says + `\d\d:\d\d:\d\d UTC\. Reload it\.`).MatchString(b.text()) {
		t.Errorf("the page does not say since when: %s", b.text())
	}
	b.examine(t, "a page that is not refreshed")
	b.offline(t, false)
	refreshes()
	api.call(t, http.StatusOK, "DELETE", hook, "")
	b.sees(t, says, "Ready")
}

// Long texts and those that turn the direction of text stay in their place.
func TestBrowser_TextsOfOthersStayInTheirPlace(t *testing.T) {
	t.Parallel()
	receiver := newPortalReceiver(t)
	_, b := portalWorld(t, receiver)
	origin := evaluated[string](t, b, "location.origin")
	api := apiClient{origin + "/v2/accounts/", chaosOperator}
	hook := accountName(0) + "/webhooks/" + data(t, api.call(t, http.StatusCreated, "PUT", accountName(0)+"/webhooks", fmt.Sprintf(`{"data":{"name":"\u202egnilleb","uri":%q}}`, receiver.url)))["id"].(string)
	b.do(t, chromedp.Navigate(origin+"/portal/a/"+hook+"/events"))
	if crumbs := evaluated[string](t, b, `(() => {
		const crumbs = document.querySelector(".crumbs"), link = crumbs.querySelector("a:last-of-type"), rest = document.createRange();
		rest.setStartAfter(link);
		rest.setEndAfter(crumbs.lastChild);
		return link.getBoundingClientRect().right <= rest.getBoundingClientRect().left + 1 ? "" : crumbs.innerText;
	})()`); crumbs != "" {
		t.Errorf("what stands behind the name of a webhook is shown before it: %q", crumbs)
	}

	b.do(t, chromedp.Navigate(origin+"/portal/operator"), chromedp.SetValue("#token", chaosOperator), chromedp.Click("main button"))
	b.sees(t, "Fleet")
	b.do(t, chromedp.EmulateViewport(360, 900))
	for _, account := range []string{"7f9c2ba4-e88f-11ee-9a1b-0242ac120002", "pbx.customer-with-long-name.example-telecom.co.uk", "pbx_customer_with_long_name_example_telecom_co_uk_x", strings.Repeat("x", 200)} {
		b.do(t, chromedp.Navigate(origin+"/portal/a/"+account))
		b.sees(t, fmt.Sprintf("Account %s", account))
		if bad := evaluated[string](t, b, spillingJS); bad != "" {
			t.Errorf("account %s: what is wider than its place: %s", account, bad)
		}
	}
}
