package portal

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"walhook/outbox/admin"
)

// auditRows is how many lines a page of the audit shows.
const auditRows = 50

// auditPage is a page of who did what.
type auditPage struct {
	Acts    []admin.Act
	Actions []string
	Filter  map[string]string // as it was asked for
	Next    string
	Faults  map[string]string // of the filter's fields, and of the page's address, by "from"
}

// Filtered reports whether it shows only some lines.
func (p auditPage) Filtered() bool {
	for _, text := range p.Filter {
		if text != "" {
			return true
		}
	}
	return false
}

// audit lists who did what, of all accounts.
func (p *Portal) audit(v *visit) {
	query := v.r.URL.Query()
	page := auditPage{Actions: admin.Actions(), Filter: map[string]string{}, Faults: map[string]string{}}
	for _, name := range []string{"account", "actor", "action", "since", "until"} {
		if page.Filter[name] = query.Get(name); !storable(page.Filter[name]) {
			page.Faults[name] = p.pages.text("audit.text")
		}
	}
	filter := admin.ActFilter{Account: page.Filter["account"], Actor: page.Filter["actor"], Action: page.Filter["action"]}
	for name, to := range map[string]*time.Time{"since": &filter.Since, "until": &filter.Until} {
		if page.Filter[name] == "" {
			continue
		}
		var err error
		if *to, err = time.Parse(time.RFC3339, sinceOf(page.Filter[name])); err != nil {
			page.Faults[name] = p.pages.text("audit.time")
		}
	}
	if action := page.Filter["action"]; action != "" && page.Faults["action"] == "" && !slices.Contains(page.Actions, action) {
		page.Faults["action"] = p.pages.text("audit.action")
	}
	if !filter.Since.IsZero() && !filter.Until.IsZero() && !filter.Until.After(filter.Since) { // as the API has it
		page.Faults["until"] = p.pages.text("times.order")
	}
	var before *admin.ActKey
	if from := query.Get("from"); from != "" {
		before = &admin.ActKey{}
		if err := json.Unmarshal([]byte(from), before); err != nil {
			page.Faults["from"] = p.pages.text("audit.page")
		}
	}
	if len(page.Faults) > 0 {
		v.show(http.StatusBadRequest, "audit", page)
		return
	}
	list, err := p.cfg.Admin.Acts(v.r.Context(), filter, before, auditRows+1)
	if err != nil {
		v.unreadable(err)
		return
	}
	if len(list) > auditRows {
		list = list[:auditRows]
		if key, err := json.Marshal(list[auditRows-1].Key()); err == nil {
			page.Next = string(key)
		}
	}
	page.Acts = list
	v.show(http.StatusOK, "audit", page)
}
