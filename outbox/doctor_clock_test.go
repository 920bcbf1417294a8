package outbox

import (
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/doctor"
)

// The clock is put wrong where it is read: this machine's.
func TestExamine_NamesAClockThatDiffersFromThisMachines(t *testing.T) {
	w := newWorld(t)
	findings := Examine(t.Context(), Config{URL: w.db.URL}, doctor.Options{Now: func() time.Time { return time.Now().Add(time.Hour) }})
	i := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.ID == "outbox.clock" })
	if f := findings[i]; f.Status != doctor.Failed || !strings.Contains(f.Evidence, "behind this machine's") {
		t.Errorf("%s is %s: %s", f.ID, f.Status, f.Evidence)
	}
}
