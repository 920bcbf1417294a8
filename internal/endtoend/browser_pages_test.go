package endtoend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"walhook/internal/carrier"
	"walhook/internal/carrier/carriertest"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// pagesWorld is a pipeline of which every page of the portal has something to show: a
// publisher and a standby, receivers of many kinds, a gap that was accepted.
type pagesWorld struct {
	*world
	receivers *receiver.Server
	activity  *carrier.Activity
	base      string // of the portal
	api       apiClient
	billing   *receiver.Switch
	processes []*childProcess
}

// broken answers as a receiver whose database is away.
func broken() receiver.Behaviour {
	return receiver.Always(receiver.Answer{Status: http.StatusInternalServerError, Header: http.Header{"Content-Type": {"text/plain"}},
		Body: "could not save the event: the database does not answer\n"})
}

func newPagesWorld(t *testing.T) *pagesWorld {
	t.Helper()
	w := &pagesWorld{billing: receiver.NewSwitch(broken())}
	var err error
	w.receivers, err = receiver.Start(receiver.Options{Behave: func(account string) receiver.Behaviour {
		switch account {
		case "broken":
			return broken()
		case "gone":
			return receiver.Gone()
		case "busy":
			return receiver.TooMany(20 * time.Minute)
		case "moved":
			return receiver.Redirect("https://www.example.com/hooks")
		case "billing":
			return w.billing.Behave
		}
		return receiver.Healthy()
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.receivers.Close() })
	urls := map[int]string{1: w.receivers.URL("broken"), 2: "http://127.0.0.1:9/hooks/a-rather-long-path/of/a/receiver/that/nobody/listens/at", 3: w.receivers.URL("gone"), 4: w.receivers.URL("busy"), 5: w.receivers.URL("moved")}
	urlFor := func(i int) string {
		if url, odd := urls[i]; odd {
			return url
		}
		return w.receivers.URL(fmt.Sprintf("account%d", i))
	}
	w.world = newWorld(t, pgtest.Database(t), urlFor)
	w.activity, err = carrier.NewActivity(t.Context(), w.db.URL, carrier.Options{Accounts: worldAccounts, Seed: 7, URLFor: urlFor, FixedURLs: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.activity.Close)
	return w
}

// start runs a publisher that also serves the portal, and a standby.
func (w *pagesWorld) start(t *testing.T) {
	t.Helper()
	address := loopback.Address(t)
	w.base = "http://" + address + "/portal/"
	w.api = apiClient{"http://" + address + "/v2/accounts/", chaosOperator}
	args := []string{"run", "--source", w.db.URL, "--slot", w.slot, "--admin-token", chaosOperator, "--allow-cidr", "127.0.0.0/8", "--retry-schedule", "1s,1s,1s,1h"}
	w.processes = []*childProcess{startChild(t, append(args, "--listen", address)...)}
	awaitReady(t, address)
	w.processes = append(w.processes, startChild(t, append(args, "--listen", "off")...))
}

func (w *pagesWorld) stop(t *testing.T) {
	t.Helper()
	for _, p := range w.processes {
		p.stop(t)
	}
}

// works lets the carrier work until so many more transactions are committed.
func (w *pagesWorld) works(t *testing.T, transactions int) {
	t.Helper()
	carriertest.RunUntil(t, w.activity, 0, carriertest.Committed(w.activity.Stats().Committed+transactions))
}

// loses takes the slot away and lets the carrier work meanwhile.
func (w *pagesWorld) loses(t *testing.T) {
	t.Helper()
	w.stop(t)
	w.db.Exec(t, fmt.Sprintf(`SELECT pg_drop_replication_slot('%s')`, w.slot))
	w.works(t, 30)
}

// hooks gives the account webhooks of many kinds.
func (w *pagesWorld) hooks(t *testing.T, account string) (crm, billing string) {
	t.Helper()
	make := func(fields string) string {
		return data(t, w.api.call(t, http.StatusCreated, "PUT", account+"/webhooks", `{"data":{`+fields+`}}`))["id"].(string)
	}
	crm = make(fmt.Sprintf(`"name":"CRM","uri":%q,"schemas":["dids","users","e911"],"custom_data":{"site":"Chicago"},"rate_limit":50`, w.receivers.URL("crm")+"?key=hidden"))
	billing = make(fmt.Sprintf(`"name":"Billing","uri":%q,"retries":0`, w.receivers.URL("billing")))
	make(fmt.Sprintf(`"name":"Daily counts of calls","uri":%q,"hook":"all","delivery":"daily","daily_at":"06:00"`, w.receivers.URL("counts")))
	make(fmt.Sprintf(`"name":"The old one","uri":%q,"enabled":false`, w.receivers.URL("old")))
	make(`"name":"Read by the data warehouse","delivery":"pull"`)
	return crm, billing
}

// Every page of a portal over a real pipeline, as people look at it: it fits, can be read
// in light and dark, and is small. TEST_SHOTS names a folder for pictures of all of them.
func TestBrowser_EveryPageFitsAndCanBeRead(t *testing.T) {
	t.Parallel()
	b := newBrowser(t) // skips
	w := newPagesWorld(t)
	w.start(t)
	account := accountName(0)
	w.works(t, 20)
	crm, billing := w.hooks(t, account)
	w.works(t, 200)
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (900001, %d, '15550100')`, carrier.AccountID(0)))
	w.settled(t)
	w.loses(t)
	mustRun(t, "setup", "--source", w.db.URL, "--slot", w.slot, "--accept-gap")
	w.start(t)
	w.works(t, 50)
	w.settled(t)

	b.opens(t, w.base)
	b.looks(t, "welcome")
	b.opens(t, w.base+"operator")
	b.looks(t, "operator entry")
	b.do(t, chromedp.SendKeys("#token", "a wrong token"), chromedp.Click("main button"))
	b.sees(t, "This is not the operator's token")
	b.looks(t, "operator entry wrong")
	t.Run("of the operator", func(t *testing.T) { w.operatorsPages(t, b, account) })
	b.do(t, chromedp.Click(`//header//button[.="Sign out"]`))
	b.sees(t, "Ask your provider")
	t.Run("of the account", func(t *testing.T) { w.accountsPages(t, b, account, crm, billing) })
}

func (w *pagesWorld) operatorsPages(t *testing.T, b *browser, account string) {
	b.opens(t, w.base+"operator")
	b.do(t, chromedp.SendKeys("#token", chaosOperator), chromedp.Click("main button"))
	b.sees(t, "Publisher")
	eventually(t, patience, func() bool {
		b.do(t, chromedp.Reload())
		return strings.Count(b.text(), "Alive") == 2 && strings.Contains(b.text(), "Breaker open") && !strings.Contains(b.text(), "nobody takes over")
	})
	for _, page := range []struct{ name, path string }{
		{"fleet", "fleet"}, {"accounts", "accounts"}, {"accounts found", "accounts?q=hooks"}, {"accounts none", "accounts?q=nobody"}, {"letters of all", "letters"}, {"gaps", "gaps"},
		{"doctor", "doctor"}, {"audit", "audit"}, {"audit filtered", "audit?action=webhook+created&account=" + account}, {"operators overview", "a/" + account}, {"operators 404", "nothing"},
	} {
		b.opens(t, w.base+page.path)
		b.looks(t, page.name)
	}
	b.opens(t, w.base+"doctor")
	b.click(t, "Examine now")
	eventually(t, patience, func() bool { // fast checks are over by then
		text := b.text()
		return strings.Contains(text, "The checks are running") || strings.Contains(text, "Checks that need nobody")
	})
	b.looks(t, "doctor running")
	b.sees(t, "Checks that need nobody")
	b.looks(t, "doctor result")
}

func (w *pagesWorld) accountsPages(t *testing.T, b *browser, account, crm, billing string) {
	link := data(t, w.api.call(t, http.StatusCreated, "PUT", account+"/portal", `{"data":{}}`))["url"].(string)
	b.opens(t, link)
	b.looks(t, "link")
	b.click(t, "Open")
	b.sees(t, "Overview")
	b.opens(t, link)
	b.click(t, "Open")
	b.sees(t, "This link has been used")
	b.looks(t, "link used")
	hook := func(id string) string { return "a/" + account + "/webhooks/" + id }
	for _, page := range []struct{ name, path string }{
		{"overview", "a/" + account}, {"webhook", hook(crm)}, {"webhook failing", hook(billing)}, {"own webhook", hook("account")}, {"events", hook(billing) + "/events"},
		{"events filtered", hook(billing) + "/events?state=dead&schema=dids&since=2020-01-01T00%3A00"}, {"events none", hook(crm) + "/events?record=dids:1000000"},
		{"events wrong filter", hook(crm) + "/events?since=yesterday"}, {"events record", hook("account") + "/events?record=dids:900001"},
		{"edit", hook(crm) + "/edit"}, {"edit own", hook("account") + "/edit"}, {"new", "a/" + account + "/webhooks/new"}, {"resync", hook(crm) + "/resync"},
		{"dead", "a/" + account + "/dead"}, {"types", "a/" + account + "/types"}, {"type record", "a/" + account + "/types/dids"}, {"type event", "a/" + account + "/types/channel_create"},
		{"type notifications", "a/" + account + "/types/notifications"}, {"verify", "a/" + account + "/verify"}, {"404", hook("nothing")},
	} {
		b.opens(t, w.base+page.path)
		b.looks(t, page.name)
	}
	b.opens(t, w.base+hook(billing)+"/events?state=dead")
	b.do(t, chromedp.Click(`td a[href*="/events/"]`))
	b.sees(t, "What became of it")
	b.looks(t, "event dead")
	b.opens(t, w.base+hook("account")+"/events?record=dids:900001")
	b.do(t, chromedp.Click(`td a[href*="/events/"]`))
	b.sees(t, "Body as sent") // of whatever the carrier did to the record last
	b.looks(t, "event delivered")
	w.forms(t, b, hook(crm), hook(billing))
}

// forms looks at what the pages of webhooks answer to a click.
func (w *pagesWorld) forms(t *testing.T, b *browser, crm, billing string) {
	b.opens(t, w.base+crm)
	b.click(t, "Send a test")
	b.sees(t, "A test is one signed request")
	b.looks(t, "webhook test")
	b.opens(t, w.base+billing)
	b.click(t, "Send a test")
	b.sees(t, "A test is one signed request")
	b.looks(t, "webhook test failed")
	b.opens(t, w.base+crm)
	b.click(t, "Show the secret")
	b.sees(t, "whsec_")
	b.looks(t, "webhook secret")
	b.click(t, "Replace the secret")
	b.do(t, chromedp.Click(`//button[.="Replace the secret"]`))
	b.sees(t, "The new secret signs")
	b.looks(t, "webhook secret replaced")
	b.opens(t, w.base+billing)
	b.do(t, chromedp.Click("#again button"))
	b.sees(t, "to send again:")
	b.looks(t, "webhook count")
	w.billing.Set(receiver.Slow(200*time.Millisecond, receiver.Healthy()))
	b.do(t, chromedp.Click("#answer button"))
	b.sees(t, "What failed is being sent again")
	b.looks(t, "events sending")
	b.opens(t, w.base+crm+"/resync")
	b.click(t, "Start")
	b.sees(t, "The resync has begun")
	b.looks(t, "resync begun")
	b.opens(t, w.base+crm)
	b.click(t, "Disable")
	b.sees(t, "The webhook is disabled")
	b.looks(t, "webhook disabled")
	b.opens(t, w.base+crm+"/edit")
	b.fill(t, "uri", "ftp://example.com")
	b.do(t, chromedp.Click("summary"))
	b.fill(t, "custom_data", "site: Chicago")
	b.fill(t, "retries", "many")
	b.click(t, "Save")
	b.sees(t, "This is not JSON")
	b.looks(t, "edit fault")
	b.fill(t, "custom_data", `{"site":"Chicago"}`)
	b.click(t, "Save")
	b.do(t, chromedp.WaitVisible("#uri-fault"))
	b.looks(t, "edit faults of the api")
}
