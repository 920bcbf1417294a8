package portal

import (
	"net/http"
	"time"
)

// times are what a form says of a time, where that is wrong.
type times struct {
	Form         string // the beginning of the ids of its fields
	Since, Until string // as they were sent
	Faults       map[string]string
}

// TimesOf are the wrong times of one of the page's forms; nil where they are not its.
func (p webhookPage) TimesOf(form string) *times {
	if p.Times == nil || p.Times.Form != form {
		return nil
	}
	return p.Times
}

// wrongTimes says what is wrong with the times of a form. Since is wanted.
func (v *visit) wrongTimes(names ...string) map[string]string {
	faults, read := map[string]string{}, map[string]time.Time{}
	for _, name := range names {
		text := v.r.PostFormValue(name)
		at, err := time.Parse(time.RFC3339, sinceOf(text))
		switch {
		case text == "" && name == "since":
			faults[name] = v.p.pages.text("times.missing")
		case text == "":
		case err != nil || at.UTC().Year() < 1970 || at.UTC().Year() > 9999: // as the API has it
			faults[name] = v.p.pages.text("events.time_wrong")
		default:
			read[name] = at
		}
	}
	since, begins := read["since"]
	if until, ends := read["until"]; begins && ends && !until.After(since) {
		faults["until"] = v.p.pages.text("times.order")
	}
	return faults
}

// showWrongTimes shows a form of a webhook's page again.
func (v *visit) showWrongTimes(form string, faults map[string]string) {
	v.showWebhook(http.StatusBadRequest, webhookPage{Times: &times{Form: form, Since: v.r.PostFormValue("since"), Until: v.r.PostFormValue("until"), Faults: faults}})
}
