package source

import (
	"maps"
	"strings"
	"testing"

	"walhook/schemas"
)

func TestTimelineHistory_ReadsWhatTheServerWrites(t *testing.T) {
	for _, test := range []struct {
		name, content string
		want          map[int32]schemas.LSN // nil for an error
	}{
		{"two promotions", "1\t0/30001C8\tno recovery target specified\n\n2\t1/A\tbefore 2000-01-01 00:00:00+00\n", map[int32]schemas.LSN{1: 0x30001C8, 2: 1<<32 | 0xA}},
		{"a comment", "# by hand\n1\t0/1\n", map[int32]schemas.LSN{1: 1}},
		{"empty", "", map[int32]schemas.LSN{}},
		{"no LSN", "1\n", nil},
		{"no timeline", "x\t0/1\n", nil},
		{"junk", "1\t0/1junk\treason\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseTimelineHistory([]byte(test.content))
			if (err == nil) != (test.want != nil) || err == nil && !maps.Equal(got, test.want) {
				t.Errorf("got %v, err %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestCheck_ALostSlotIsExplainedByTheServersOwnReason(t *testing.T) {
	for _, c := range []struct {
		slot SlotState
		want string
	}{
		{SlotState{lostBy: "wal_removed"}, "max_slot_wal_keep_size was exceeded"},
		{SlotState{lostBy: "wal_removed", unlimited: true}, "max_slot_wal_keep_size was exceeded (it is now -1)"},
		{SlotState{lostBy: "idle_timeout", unlimited: true}, "idle_replication_slot_timeout"},
		{SlotState{lostBy: "wal_level_insufficient"}, "wal_level"},
		{SlotState{lostBy: "rows_removed"}, "rows_removed"},
		{SlotState{lostBy: "something_newer"}, "something_newer"},

		// Up to PostgreSQL 16, which names no reason.
		{SlotState{}, "max_slot_wal_keep_size was exceeded"},
		{SlotState{unlimited: true}, "does not say why"},
	} {
		got := c.slot.whyLost()
		if !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q does not say %q", c.slot, got, c.want)
		}
		if c.slot.lostBy != "wal_removed" && (c.slot.unlimited || c.slot.lostBy != "") && strings.Contains(got, "exceeded") {
			t.Errorf("%+v is blamed on max_slot_wal_keep_size: %q", c.slot, got)
		}
	}
}
