package portal

import (
	"net/http"
	"strconv"

	"walhook/outbox/admin"
)

// consoleRows is how many rows a list of the operator's pages shows.
const consoleRows = 50

// gaps lists what was missed, and how much of it was sent afterwards.
func (p *Portal) gaps(v *visit) {
	list, err := p.cfg.Admin.Gaps(v.r.Context(), from(v.r), consoleRows+1)
	if err != nil {
		v.unreadable(err)
		return
	}
	next := ""
	if len(list) > consoleRows {
		list = list[:consoleRows]
		next = strconv.FormatInt(list[consoleRows-1].ID, 10)
	}
	v.show(http.StatusOK, "gaps", map[string]any{"Gaps": list, "Next": next})
}

// deadOfAll lists the endpoints of all accounts that have dead letters.
func (p *Portal) deadOfAll(v *visit) {
	list, err := p.cfg.Admin.DeadEndpoints(v.r.Context(), from(v.r), consoleRows+1)
	if err != nil {
		v.unreadable(err)
		return
	}
	next := ""
	if len(list) > consoleRows {
		list = list[:consoleRows]
		next = strconv.FormatInt(list[consoleRows-1].Endpoint, 10)
	}
	v.show(http.StatusOK, "letters", map[string]any{"Endpoints": list, "Next": next, "Most": admin.DeadCountLimit})
}

// from reads where a page of a list begins; a text that is no number begins at the start.
func from(r *http.Request) int64 {
	n, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}
