package portal

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"walhook/outbox/admin"
	"walhook/schemas/catalog"
)

func TestBrandOf_TakesEachPartFromTheNearestRow(t *testing.T) {
	t.Parallel()
	accent := func(text string) Accent {
		a, err := ParseAccent(text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	logo := &Logo{hash: "x"}
	configured := Brand{Name: "Carrier", Accent: accent("#111111"), Support: "https://carrier.example", Logo: logo, LogoDark: logo}
	row := func(account string, parts ...string) admin.AccountBrand {
		b := admin.AccountBrand{Account: account}
		for i, to := range []**string{&b.Name, &b.Accent, &b.Support} {
			if i < len(parts) && parts[i] != "" {
				*to = &parts[i]
			}
		}
		return b
	}
	for name, c := range map[string]struct {
		rows    []admin.AccountBrand
		want    Brand
		ignored string
	}{
		"no rows":             {nil, configured, ""},
		"an empty row":        {[]admin.AccountBrand{row("7")}, configured, ""},
		"its own":             {[]admin.AccountBrand{row("7", "Seven", "#777777", "https://seven.example"), row("5", "Five", "#555555", "https://five.example")}, Brand{Name: "Seven", Accent: accent("#777777"), Support: "https://seven.example"}, ""},
		"the reseller's":      {[]admin.AccountBrand{row("7"), row("5", "Five", "#555555", "https://five.example"), row("1", "One")}, Brand{Name: "Five", Accent: accent("#555555"), Support: "https://five.example"}, ""},
		"in parts":            {[]admin.AccountBrand{row("7", "", "#777"), row("5", "", "", "mailto:help@five.example"), row("1", "One", "#111", "https://one.example")}, Brand{Name: "One", Accent: accent("#777"), Support: "mailto:help@five.example"}, ""},
		"a name ends it":      {[]admin.AccountBrand{row("7", "Seven"), row("5", "Five", "#555555", "https://five.example")}, Brand{Name: "Seven", Accent: configured.Accent}, ""},
		"a colour alone":      {[]admin.AccountBrand{row("7", "", "#777777")}, Brand{Name: "Carrier", Accent: accent("#777777"), Support: configured.Support, Logo: logo, LogoDark: logo}, ""},
		"a link alone":        {[]admin.AccountBrand{row("7", "", "", "https://seven.example")}, Brand{Name: "Carrier", Accent: configured.Accent, Support: "https://seven.example", Logo: logo, LogoDark: logo}, ""},
		"bad ones fall back":  {[]admin.AccountBrand{row("7", "a\x00b", "red;}body{", "javascript:alert(1)"), row("5", "Five", "#555555", "https://five.example")}, Brand{Name: "Five", Accent: accent("#555555"), Support: "https://five.example"}, "7 accent, 7 support, 7 name"},
		"all bad":             {[]admin.AccountBrand{row("7", strings.Repeat("x", 61), "url(//evil)", "//evil")}, configured, "7 accent, 7 support, 7 name"},
		"an unreadable row":   {[]admin.AccountBrand{{Account: "7", Unreadable: true}, row("5", "Five")}, Brand{Name: "Five", Accent: configured.Accent}, "7 all"},
		"a bad one unneeded":  {[]admin.AccountBrand{row("7", "Seven"), row("5", "a\nb", "red", "x")}, Brand{Name: "Seven", Accent: configured.Accent}, ""},
		"a bad one overruled": {[]admin.AccountBrand{row("7", "", "#777777"), row("5", "Five", "red")}, Brand{Name: "Five", Accent: accent("#777777")}, ""},
	} {
		var ignored []string
		got := brandOf(c.rows, configured, func(account, part, why string) { ignored = append(ignored, account+" "+part) })
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if said := strings.Join(ignored, ", "); said != c.ignored {
			t.Errorf("%s: ignored are %q, want %q", name, said, c.ignored)
		}
	}
}

// The kept columns are, in this order: colour, company, help.
const brandedCatalog = `
account: {table: users, id: id, url: url, parent: up, brand: {name: company, accent: colour, support: help}}
schemas: {dids: {table: dids, owner: u, fields: [id]}}
`

// resellers is a world with two resellers, 5 and 6, and their accounts, 7 and 8.
func resellers(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := newWorld(t, append([]func(*Config){func(c *Config) {
		c.Brand.Name, c.Brand.Support = "The Carrier", "https://carrier.example/help"
		var err error
		if c.Brand.Logo, err = ReadLogo([]byte(anSVG)); err != nil {
			t.Fatal(err)
		}
	}}, change...)...)
	c, err := catalog.Parse([]byte(brandedCatalog))
	if err != nil {
		t.Fatal(err)
	}
	w.exec(t, "INSERT INTO walhook.catalog (state, fingerprint, content) VALUES ('in_force', $1, $2)", c.Fingerprint(), c.YAML())
	w.exec(t, "INSERT INTO walhook.account (id, parent) VALUES ('7', '5'), ('8', '6')")
	w.keep(t, "5", `"#0f766e"`, `"Five Telecom"`, `"https://five.example/help"`)
	w.keep(t, "6", `"#be185d"`, `"Six Networks"`, `"mailto:help@six.example"`)
	return w
}

// keep stores the columns of an account as the publisher does.
func (w *world) keep(t *testing.T, account string, columns ...string) {
	t.Helper()
	w.exec(t, "INSERT INTO walhook.account_column (account, columns) VALUES ($1, $2) ON CONFLICT (account) DO UPDATE SET columns = excluded.columns", account, columns)
}

// Whoever is in an account sees the brand of its reseller, and no trace of another's.
func TestBrand_OfAResellerIsForItsAccountsAlone(t *testing.T) {
	w := resellers(t)
	five := []string{"Five Telecom", "0f766e", "five.example"}
	six := []string{"Six Networks", "be185d", "six.example"}
	carrier := []string{"The Carrier", "carrier.example/help"}
	see := func(what string, r page, want []string, never ...[]string) {
		t.Helper()
		for _, part := range want {
			if !strings.Contains(r.text, part) {
				t.Errorf("%s lacks %q: %s", what, part, r.text)
			}
		}
		for _, others := range never {
			for _, part := range others {
				if strings.Contains(r.text, part) {
					t.Errorf("%s shows %q: %s", what, part, r.text)
				}
			}
		}
	}
	seven, eight, hook := w.session(t, "7"), w.session(t, "8"), w.hook(t, "7")
	for _, route := range w.portal.routes {
		if route.method != http.MethodGet || !strings.HasPrefix(route.path, "a/") {
			continue
		}
		own := seven.get(t, at(route.path, "7", hook.ID))
		if to, leads := strings.CutPrefix(own.header.Get("Location"), Prefix); leads { // as a browser follows it
			own = seven.get(t, to).want(t, http.StatusOK)
		}
		see("account 7, "+route.path, own, five, six, carrier)
		see("account 8 at account 7, "+route.path, eight.get(t, at(route.path, "7", hook.ID)), six, five, carrier)
		see("nobody at account 7, "+route.path, w.browser(t).get(t, at(route.path, "7", hook.ID)), carrier, five, six)
	}
	see("the reseller", w.session(t, "5").get(t, "a/5"), five, six, carrier)
	see("an account without a reseller", w.session(t, "9").get(t, "a/9"), append(carrier, "/portal/logo"), five, six)
	operator := w.operator(t)
	see("an operator at account 7", operator.get(t, "a/7"), five, six, carrier)
	see("an operator's page", operator.get(t, "fleet"), append(carrier, "/portal/logo"), five, six)
	see("a page that is not there", seven.get(t, "nothing"), five, six, carrier)

	// The page of a link looks like the portal that it opens, as long as it can open it.
	link := w.link(t, "8")
	see("a link", w.browser(t).get(t, "enter?link="+link), six, five, carrier)
	if r := w.browser(t).post(t, "enter", url.Values{"link": {link}}); r.status != http.StatusSeeOther {
		t.Errorf("the link was used up by its page: %d", r.status)
	}
	for _, used := range []string{link, "whlink_x", "7", ""} {
		see("link "+used, w.browser(t).get(t, "enter?link="+used), carrier, five, six)
	}
	// Who guesses is not looked up for a while.
	open, guesser := w.link(t, "8"), w.browser(t)
	for range 2 * entryBurst {
		guesser.get(t, "enter?link=whlink_guess")
	}
	see("a link from an address that guesses", guesser.get(t, "enter?link="+open), carrier, six)
	guesser.post(t, "enter", url.Values{"link": {open}}).want(t, http.StatusSeeOther)
}

// What a row holds is somebody's text.
func TestBrand_OfARowIsHostile(t *testing.T) {
	w := resellers(t)
	b := w.session(t, "7")
	for name, c := range map[string]struct {
		columns []string
		never   []string
		reason  string
	}{
		"a name with markup":  {[]string{"null", `"<script>alert(1)</script><img src=x onerror=alert(2)>"`, "null"}, nil, ""},
		"a script as link":    {[]string{"null", "null", `"javascript:alert(1)"`}, []string{"javascript:"}, "support"},
		"a quote in the link": {[]string{"null", "null", `"https://x.example/\"onclick=alert(1) x=\""`}, []string{"onclick"}, "support"},
		"css as colour":       {[]string{`"red;}body{background:url(//evil.example)"`, "null", "null"}, []string{"evil.example", "red;}"}, "accent"},
		"a path as colour":    {[]string{`"../../static/app"`, "null", "null"}, []string{"theme/.."}, "accent"},
		"a long name":         {[]string{"null", `"` + strings.Repeat("long", 500) + `"`, "null"}, []string{"longlong"}, "name"},
		"a turned name":       {[]string{"null", `"\u202eevil"`, "null"}, []string{"\u202e"}, "name"},
		"an object":           {[]string{`{"a":1}`, `{"a":"<script>"}`, `[1]`}, nil, "accent"},
		"no JSON":             {[]string{`<script>`, `"half`, `x`}, nil, "accent"},
		"too few columns":     {[]string{`"#123456"`}, nil, "all"},
	} {
		w.keep(t, "7", c.columns...)
		w.logs.TakeAll()
		clear(w.portal.ignored.last)
		r := b.get(t, "a/7").want(t, http.StatusOK)
		for _, bad := range append(c.never, "<script>", "<img src=x", "ZgotmplZ") {
			if strings.Contains(r.text, bad) {
				t.Errorf("%s: the page has %q: %s", name, bad, r.text)
			}
		}
		b.get(t, "a/7")
		said := 0
		for _, entry := range w.logs.FilterMessage("brand in an account's row ignored").All() {
			fields := entry.ContextMap()
			if fields["account"] != "7" {
				t.Errorf("%s: the log names account %v", name, fields["account"])
			}
			if fields["part"] == c.reason {
				said++
			}
			for _, column := range c.columns {
				if text := strings.Trim(column, `"`); len(text) > 6 && strings.Contains(fields["reason"].(string), text) {
					t.Errorf("%s: the log quotes the row: %v", name, fields)
				}
			}
		}
		if want := min(1, len(c.reason)); said != want {
			t.Errorf("%s: %d lines of the log about %q, want %d", name, said, c.reason, want)
		}
	}
}

// A brand that cannot be read is no reason to show no page.
func TestBrand_ThatCannotBeReadIsTheConfigurations(t *testing.T) {
	w := resellers(t, func(c *Config) {
		c.Brands = func(context.Context, string) ([]admin.AccountBrand, error) { return nil, errors.New("no answer") }
	})
	w.session(t, "7").get(t, "a/7").want(t, http.StatusOK, "The Carrier")
	if w.logs.FilterMessageSnippet("brand of an account not read").Len() == 0 {
		t.Error("the log does not say it")
	}
}
