package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"walhook/schemas"
)

// candidate is a table that may be the table of accounts.
type candidate struct {
	table   *Table
	id      string
	reasons []string
	score   int
}

// accountNames are what tables of accounts are called, the likeliest first.
var accountNames = []string{"account", "customer", "tenant", "domain", "company", "organization", "organisation", "client", "reseller", "subscriber", "user", "card", "member"}

// urlNames are what the column of a webhook URL is called.
var urlNames = []string{"web_hook_url", "webhook_url", "webhook", "web_hook", "hook_url", "callback_url", "notify_url", "notification_url", "callback"}

const wantedURL = "web_hook_url"

// chooseAccount takes the account table that was named, or the best guess.
func (d *draft) chooseAccount(name schemas.TableName) error {
	if d.named = name != (schemas.TableName{}); d.named {
		t := d.byName[name]
		if t == nil || !slices.Contains(d.usable, t) {
			return d.unfit(name, t)
		}
		d.account = d.judged(t)
		if d.account.id == "" {
			return fmt.Errorf("table %s has no column alone that tells its rows apart, which an account's id has to be", name)
		}
		return nil
	}
	var all []candidate
	for _, t := range d.usable {
		if c := d.judged(t); c.id != "" && c.score > 0 {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	if len(all) == 0 {
		return ErrNoAccount
	}
	d.account, d.others = all[0], all[1:min(len(all), 4)]
	return nil
}

func (d *draft) unfit(name schemas.TableName, t *Table) error {
	if t != nil {
		return fmt.Errorf("table %s cannot be the table of accounts: %s", name, cmp.Or(d.left[name], unusable(t)))
	}
	c := comparison{tables: d.byName}
	for _, one := range d.byName {
		c.names = append(c.names, one)
	}
	slices.SortFunc(c.names, func(a, b *Table) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	return fmt.Errorf("table %s does not exist in the source; %s", name, c.nearestTable(name))
}

// judged says what speaks for a table of accounts.
func (d *draft) judged(t *Table) candidate {
	c := candidate{table: t}
	ids := [][]string{t.Key}
	ids = append(ids, t.Unique...)
	most := -1
	for _, id := range ids {
		if len(id) != 1 || isSecret(t, t.Column(id[0])) || t.Column(id[0]).Equality == schemas.EqualUnknown || t.Column(id[0]).Unsent {
			continue
		}
		if n := d.referrers(t, id[0]); n > most {
			c.id, most = id[0], n
		}
	}
	if c.id == "" {
		return c
	}
	if url := urlColumn(t); url != "" {
		c.score += 100
		c.reasons = append(c.reasons, fmt.Sprintf("column %s looks like a webhook URL", url))
	}
	words := nameWords(t.Name.Name)
	if at := slices.IndexFunc(accountNames, func(name string) bool { return len(words) > 0 && singular(words[len(words)-1]) == name }); at >= 0 {
		c.score += 40 - at - 5*(len(words)-1)
		c.reasons = append(c.reasons, "its name")
	}
	if most > 0 {
		c.score += min(3*most, 60)
		referrers := "1 table refers"
		if most > 1 {
			referrers = fmt.Sprintf("%d tables refer", most)
		}
		c.reasons = append(c.reasons, referrers+" to its column "+c.id)
	}
	return c
}

// referrers counts the tables with a column that refers to a table's column.
func (d *draft) referrers(t *Table, id string) (n int) {
	for _, other := range d.usable {
		if other != t && slices.ContainsFunc(other.Columns, func(c TableColumn) bool {
			key := other.foreignKeyOf(c.Name)
			return key != nil && key.Table == t.Name && key.Refers[0] == id || key == nil && refersByName(&c, t, id)
		}) {
			n++
		}
	}
	return n
}

func urlColumn(t *Table) string {
	for _, name := range urlNames {
		for _, c := range t.Columns {
			if strings.EqualFold(c.Name, name) && typeClass(c.Type) == "text" && !c.Unsent {
				return c.Name
			}
		}
	}
	return ""
}

// parentColumn is the column of the account above.
func parentColumn(t *Table, id string) string {
	for _, c := range t.Columns {
		if key := t.foreignKeyOf(c.Name); key != nil && key.Table == t.Name && key.Refers[0] == id && c.Name != id {
			return c.Name
		}
	}
	isParent := func(name string) bool { // parent_id, and domain_parent_uuid beside domain_uuid
		rest, found := strings.CutPrefix(strings.Replace("_"+name, "_parent", "", 1), "_")
		return slices.Contains([]string{"parent_id", "parent_uuid", "parent", "reseller_id", "parent_" + id}, name) || found && rest == strings.ToLower(id) && rest != name
	}
	for _, c := range t.Columns {
		if isParent(strings.ToLower(c.Name)) &&
			t.foreignKeyOf(c.Name) == nil && typeClass(c.Type) == typeClass(t.Column(id).Type) {
			return c.Name
		}
	}
	return ""
}
