package portal

import (
	"net/http"
	"time"

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
	for _, s := range st.Senders {
		page.Senders = append(page.Senders, senderRow{s, s.Lease > 0})
	}
	v.show(http.StatusOK, "fleet", page)
}

// findAccount finds accounts by id, or by a part of a webhook's URL.
func (p *Portal) findAccount(v *visit) {
	text := v.r.URL.Query().Get("q")
	var found []admin.FoundEndpoint
	if text != "" {
		var err error
		if found, err = p.cfg.Admin.FindEndpoints(v.r.Context(), text); err != nil {
			v.unreadable(err)
			return
		}
	}
	v.show(http.StatusOK, "accounts", map[string]any{"Text": text, "Found": found})
}
