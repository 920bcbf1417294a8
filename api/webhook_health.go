package api

import (
	"context"
	"time"

	"walhook/outbox/admin"
)

// health is how delivery to a webhook goes.
type health struct {
	Breaker       string    `json:"breaker" enum:"closed,open,half_open" doc:"open: the receiver fails, and nothing is sent until open_until; half_open: one event is sent as a probe"`
	OpenUntil     time.Time `json:"open_until,omitzero"`
	PausedUntil   time.Time `json:"paused_until,omitzero" doc:"the receiver asked for a pause by 429 or 503"`
	FailingSince  time.Time `json:"failing_since,omitzero" doc:"the first failure since the last success"`
	LastReason    string    `json:"last_reason,omitempty" doc:"of the last attempt, where that failed"`
	LastSuccessAt time.Time `json:"last_success_at,omitzero" doc:"before failing_since, within retention"`
	Waiting       int64     `json:"waiting" doc:"events that wait for their first attempt; up to 1000, in lists up to 50"`
	Retrying      int64     `json:"retrying" doc:"events that wait for a retry; up to 1000, in lists up to 50"`
	Dead          int64     `json:"dead" doc:"dead letters; up to 1000, in lists up to 50"`
}

// How far each number of a webhook's health counts: an account has 100 webhooks.
const (
	healthInLists = 50
	healthOfOne   = 1000
)

func (s *subscriptions) showHealthOf(ctx context.Context, w *webhook) error {
	list := []webhook{*w}
	err := s.showHealth(ctx, list, healthOfOne)
	*w = list[0]
	return err
}

// showHealth adds their health to webhooks.
func (s *subscriptions) showHealth(ctx context.Context, list []webhook, most int) error {
	ids := make([]int64, len(list))
	for i := range list {
		ids[i] = list[i].Endpoint
	}
	all, err := s.cfg.Admin.HealthOf(ctx, ids, most)
	if err != nil {
		return err
	}
	for i := range list {
		h := all[list[i].Endpoint]
		if list[i].Delivery == admin.DeliveryPull {
			h.Waiting = 0 // nothing is sent: what is in its feed waits for nobody
		}
		list[i].Health = shownHealth(&h)
	}
	return nil
}

// shownHealth shows nil as the health of a webhook that nothing was sent to.
func shownHealth(h *admin.Health) *health {
	if h == nil {
		return &health{Breaker: "closed"}
	}
	now := time.Now()
	s := &health{
		Breaker: "closed", FailingSince: utc(h.Lane.FailingSince), LastReason: h.LastReason, LastSuccessAt: utc(h.LastSuccess),
		Waiting: h.Waiting, Retrying: h.Retrying, Dead: h.Dead,
	}
	switch {
	case h.Lane.Open && h.Lane.OpenUntil.After(now):
		s.Breaker, s.OpenUntil = "open", utc(h.Lane.OpenUntil)
	case h.Lane.Open:
		s.Breaker = "half_open"
	}
	if h.Lane.PausedUntil.After(now) {
		s.PausedUntil = utc(h.Lane.PausedUntil)
	}
	return s
}
