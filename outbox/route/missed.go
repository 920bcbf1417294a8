package route

import (
	"slices"
	"time"

	"walhook/schemas"
)

// Missed is what the endpoints of an account missed in a gap: an event of the record feed
// whose bodies are made already.
type Missed struct {
	N            int64 // its place in the gap
	WebhookID    string
	Type         string
	Schema, Key  string
	Account      string
	Above        string // the parent account of one that is gone; otherwise ""
	About        string // the account whose endpoints get Body; others get Masked. "" for all the same
	Own          bool   // the account's own endpoint gets it
	Body, Masked []byte
	At           time.Time
}

// RouteMissed returns the plan of a transaction that appends, in their order, what was
// missed in a gap. An event has the recipients, filters, order and bounds that a change of
// the record has, and webhooks with daily delivery count it; no event is derived from it.
// newer says of the n-th, and of an endpoint's id, that the endpoint has a newer event of
// the record: it gets none then.
func RouteMissed(view *View, gap int64, missed []Missed, newer func(n, endpoint int64) bool) *Plan {
	r := newRouter(view, nil, nil, nil)
	r.plan.Gap, r.plan.Sent = gap, map[string]int64{}
	for i := range missed {
		if r.missed(&missed[i], newer) {
			r.plan.Sent[missed[i].Type]++
		}
		r.plan.Missed = append(r.plan.Missed, missed[i].N)
	}
	return r.finish()
}

func (r *router) missed(m *Missed, newer func(n, endpoint int64) bool) (sent bool) {
	c := schemas.Change{CommittedAt: m.At}
	o := occurrence{
		hook: HookRecords, schema: m.Schema, typ: m.Type, key: m.Key, record: m.Schema + ":" + m.Key, about: m.About, webhookID: m.WebhookID,
		body: render(func(masked bool) ([]byte, error) {
			if masked && m.Masked != nil {
				return m.Masked, nil
			}
			return m.Body, nil
		}),
	}
	if m.Above != "" {
		put(&r.plan.state.deleted.Parents, m.Account, m.Above)
	}
	to := r.recipientsOf(m.Account, &o)
	to = slices.DeleteFunc(to, func(one *Endpoint) bool {
		return !m.Own && one.Account == m.Account && one.Subscription == nil || newer(m.N, one.ID)
	})
	if len(to) == 0 {
		r.plan.Skipped[SkipNoEndpoint]++
		return false
	}
	r.deliver(&c, 0, m.Account, to, &o)
	return true
}
