package portal

import (
	"net/http"
	"net/url"
	"time"
)

// failedMost is how many dead letters are sent again at once: as many ids as the API takes.
const failedMost = 1000

// failed is what failed within a time: dead letters, which are sent again by their ids,
// and events that wait for a retry, which is made due.
type failed struct {
	Since, Until string // as the form has them
	IDs          []string
	More         bool // there are more dead letters than are sent at once
	Retrying     int64
	Paused       bool // the breaker is not closed: it has to try now, or what is sent waits
}

// All is how many events are sent.
func (f failed) All() int64 { return int64(len(f.IDs)) + f.Retrying }

// countFailed finds what failed. ok is false once an error is shown.
func (v *visit) countFailed() (f failed, ok bool) {
	f.Since, f.Until = v.r.PostFormValue("since"), v.r.PostFormValue("until")
	query := url.Values{"state": {"dead"}, "page_size": {"200"}}
	for name, text := range map[string]string{"since": f.Since, "until": f.Until} {
		if text != "" {
			query.Set(name, sinceOf(text))
		}
	}
	for !f.More {
		var list []event
		r, err := v.call(http.MethodGet, v.hookPath("/events"), query, nil, &list)
		if err != nil || !r.OK() {
			v.answered(r, err, nil)
			return f, false
		}
		for _, e := range list {
			f.IDs = append(f.IDs, e.EventID)
		}
		if r.Next == "" {
			break
		}
		query.Set("start_key", r.Next)
		f.More = len(f.IDs) >= failedMost
	}
	f.IDs = f.IDs[:min(len(f.IDs), failedMost)]
	var w webhook
	if _, ok := v.got(v.hookPath(""), nil, &w); !ok {
		return f, false
	}
	if w.Health != nil {
		f.Retrying, f.Paused = w.Health.Retrying, w.Health.Breaker != "closed"
	}
	return f, true
}

// sendFailed sends again what failed within a time. It counts first.
func (p *Portal) sendFailed(v *visit) {
	if faults := v.wrongTimes("since", "until"); len(faults) > 0 {
		v.showWrongTimes("failed", faults)
		return
	}
	f, ok := v.countFailed()
	if !ok {
		return
	}
	if v.r.PostFormValue("sure") == "" {
		v.answered(reply{Status: http.StatusOK}, nil, func(page *webhookPage) { page.Failed = &f })
		return
	}
	if len(f.IDs) > 0 {
		r, err := v.call(http.MethodPost, v.hookPath("/replay"), nil, map[string]any{"event_ids": f.IDs}, nil, v.once()...)
		if err != nil || !r.OK() {
			v.answered(r, err, nil)
			return
		}
	}
	if f.Retrying > 0 || f.Paused {
		v.retryThen("failed")
		return
	}
	v.toHook("failed", "events")
}

// retry makes what waits for a retry due now: chosen events, or all.
func (p *Portal) retry(v *visit) { v.retryThen("retry") }

func (v *visit) retryThen(done string) {
	_ = v.r.ParseForm() // the form's token was read from it before
	body := map[string]any{}
	ids := v.r.PostForm["event"]
	if len(ids) > 0 {
		body["event_ids"] = ids
	}
	r, err := v.call(http.MethodPost, v.hookPath("/retry"), nil, body, nil)
	if r.stands() {
		done = "not_retried"
	}
	switch {
	case err != nil || !r.OK() && !r.stands():
		v.answered(r, err, nil)
	default:
		v.toEvents(done, ids)
	}
}

// inHours is a time for a form: so many hours ago, to the minute.
func inHours(ago int) string {
	return time.Now().UTC().Add(-time.Duration(ago) * time.Hour).Format("2006-01-02T15:04")
}
