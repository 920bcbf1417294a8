package source

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/doctor"
	"walhook/internal/pgtest"
	"walhook/schemas/catalog"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// The clock is put wrong where it is read: this machine's.
func TestExamine_NamesAClockThatDiffersFromThisMachines(t *testing.T) {
	t.Parallel()
	wrong := doctor.Options{Now: func() time.Time { return time.Now().Add(time.Hour) }}
	nothing := func(context.Context) (Stored, error) { return Stored{}, nil }
	findings := Examine(t.Context(), Config{URL: pgtest.Database(t).URL, Catalog: catalog.Carrier()}, nothing, wrong)
	i := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.ID == "source.clock" })
	if f := findings[i]; f.Status != doctor.Failed || !strings.Contains(f.Evidence, "behind this machine's") {
		t.Errorf("%s is %s: %s", f.ID, f.Status, f.Evidence)
	}
}
