package portal

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"walhook/outbox"
	"walhook/outbox/admin"
)

func (p *Portal) registerOperator(mux *http.ServeMux) {
	p.forOperator(mux, "GET", "fleet", p.fleet)
	p.forOperator(mux, "GET", "accounts", p.findAccount)
	p.forOperator(mux, "GET", "audit", p.audit)
	p.forOperator(mux, "GET", "gaps", p.gaps)
	p.forOperator(mux, "GET", "letters", p.deadOfAll)
	p.forOperator(mux, "GET", "doctor", p.showDoctor)
	p.forOperator(mux, "POST", "doctor", p.startDoctor)
}

// fleetPage is how the whole fares.
type fleetPage struct {
	admin.Status
	Taken   time.Time
	Oldest  string
	Senders []senderRow
	Source  *Source // nil where the process has none, or it does not answer
	NoWAL   bool    // the source does not answer

	Reading       mark // whether somebody reads the slot; none where that is not known
	LaneMarks     []mark
	EndpointMarks []mark
	WorstMarks    []mark // of each of Worst
}

// senderRow is a sending process.
type senderRow struct {
	admin.SenderStatus
	Alive bool
}

// fleet shows what `walhook status` prints of the outbox.
func (p *Portal) fleet(v *visit) {
	st, err := p.cfg.Admin.Status(v.r.Context())
	if err != nil {
		v.unreadable(err)
		return
	}
	page := fleetPage{Status: st, Taken: time.Now(), Oldest: p.pages.rough(st.Oldest)}
	if facts, ok := p.source.now(v.r.Context(), &st); ok {
		page.Source = &facts
	} else {
		page.NoWAL = p.source.ask != nil
	}
	switch {
	case page.Source != nil && page.Source.Reader == "":
		page.Reading = p.pages.mark("bad", "fleet.unread")
	case page.Source != nil:
		page.Reading = p.pages.mark("good", "fleet.read")
	}
	page.LaneMarks = countedMarks(st.Lanes, p.pages.lane)
	page.EndpointMarks = countedMarks(st.Endpoints, p.pages.endpointState)
	for _, e := range st.Worst {
		m := p.pages.lane(string(e.Status))
		if e.Status == outbox.LaneLive && !e.Lane.FailingSince.IsZero() {
			m = p.pages.mark("warn", "lane.failing")
		}
		page.WorstMarks = append(page.WorstMarks, m)
	}
	for _, s := range st.Senders {
		page.Senders = append(page.Senders, senderRow{s, s.Lease > 0})
	}
	v.show(http.StatusOK, "fleet", page)
}

// countedMarks shows states with how many have them, the most first.
func countedMarks[S ~string](counts map[S]int, show func(S) mark) (list []mark) {
	states := slices.SortedFunc(maps.Keys(counts), func(a, b S) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, state := range states {
		if counts[state] == 0 {
			continue
		}
		m := show(state)
		m.Text += " " + counted(counts[state])
		list = append(list, m)
	}
	return list
}

// foundRows is how many endpoints a page of found ones shows.
const foundRows = 50

// foundPage is a page of what a search has found.
type foundPage struct {
	Text  string
	Found []admin.FoundEndpoint
	Next  string // the key of the next page
}

// findAccount finds accounts by id, or by a part of a webhook's name or URL.
func (p *Portal) findAccount(v *visit) {
	page := foundPage{Text: v.r.URL.Query().Get("q")}
	var after *admin.FoundKey
	if from := v.r.URL.Query().Get("from"); from != "" {
		if err := json.Unmarshal([]byte(from), &after); err != nil {
			after = nil // the address was changed: begin
		}
	}
	if page.Text != "" && storable(page.Text) { // no account and no URL is anything else
		found, next, err := p.cfg.Admin.FindEndpoints(v.r.Context(), page.Text, after, foundRows)
		if err != nil {
			v.unreadable(err)
			return
		}
		page.Found = found
		if key, err := json.Marshal(next); next != nil && err == nil {
			page.Next = string(key)
		}
	}
	v.show(http.StatusOK, "accounts", page)
}
