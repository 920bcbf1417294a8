package main

import (
	"testing"
	"time"

	"walhook/outbox"
	"walhook/outbox/admin"
)

func TestEndpoints_ShowTheStateOfDelivery(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	later := now.Add(time.Hour)
	for _, c := range []struct {
		name       string
		e          admin.EndpointInfo
		lane, want string
	}{
		{"all is well", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointActive}, "live", ""},
		{"only fails", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointActive, Retries: 3, Dead: admin.CountLimit,
			Lane: outbox.LaneState{FailingSince: now.Add(-25 * time.Hour), Stage: 1, LastReason: "5xx", Open: true, OpenUntil: later, Behind: true}},
			"open", "failing since 2026-03-08T11:00:00Z (5xx); warning 1; open until 2026-03-09T13:00:00Z; 3 in retry; 10000 or more dead"},
		{"about to be probed", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointActive, Lane: outbox.LaneState{Open: true, OpenUntil: now.Add(-time.Second)}}, "half_open", "half_open"},
		{"paused", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointActive, Lane: outbox.LaneState{PausedUntil: later}}, "paused", "paused until 2026-03-09T13:00:00Z"},
		{"behind", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointActive, Lane: outbox.LaneState{Behind: true}}, "behind", "behind"},
		{"given up", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointDisabled, DisabledBy: "walhook", Reason: "gone", Lane: outbox.LaneState{Behind: true, FailingSince: now}},
			"held", "gone (disabled by walhook)"},
		{"cleared and held", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointCleared, DisabledBy: "operator", Reason: "no URL"}, "held", "no URL, and held by an operator"},
		{"held over a 410", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointDisabled, DisabledBy: "operator", Reason: "abuse", AlsoDisabledBy: "walhook", AlsoDisableReason: "gone"},
			"held", "abuse (disabled by operator); after that still gone (disabled by walhook)"},
		{"strict", admin.EndpointInfo{Ordering: outbox.OrderingStrict, State: outbox.EndpointActive}, "live", "ordering strict"},
		{"gone", admin.EndpointInfo{Ordering: outbox.OrderingRecord, State: outbox.EndpointActive, EndedAt: now}, "live", "the account was deleted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if lane, got := string(c.e.LaneStatus(now)), endpointDetail(&c.e, now); lane != c.lane || got != c.want {
				t.Errorf("%s: %q, want %s: %q", lane, got, c.lane, c.want)
			}
		})
	}
}
