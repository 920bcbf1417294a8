package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/schemas/catalog"
)

// diffGap says what happens to a gap that nobody has accepted yet.
type diffGap struct {
	// ByFile are the schemas that are compared as the file has them, where that has the same
	// key: the source has no more what the catalog in force says.
	ByFile []string `json:"by_file"`
	// Missed are those that neither the source nor the file have any more.
	Missed []string `json:"missed"`
	// Looked says that the source was looked at.
	Looked bool `json:"looked"`
}

// gapOf returns what happens to the gap that walhook is stopped by; nil for none, as far as
// the outbox, and the source if it is named, say.
func gapOf(ctx context.Context, s settings, next *catalog.Catalog) (*diffGap, error) {
	store, err := outbox.Open(ctx, s.outboxConfig(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return nil, usage(err)
	}
	defer store.Close()
	found, err := stoppedByGap(ctx, s, store)
	if err != nil || !found {
		return nil, outboxFault(err)
	}
	gap := &diffGap{ByFile: []string{}, Missed: []string{}}
	if s.Source == "" {
		return gap, nil
	}
	cfg := s.cdcConfig()
	cfg.Catalog = next
	by, err := catalogOfGap(ctx, cfg, store)
	if err != nil {
		return nil, err
	}
	gap.Looked, gap.ByFile, gap.Missed = true, append(gap.ByFile, by.byFile...), append(gap.Missed, by.ends...)
	if by.accounts && !by.whole {
		gap.ByFile = append([]string{"accounts"}, gap.ByFile...)
	}
	return gap, nil
}

func stoppedByGap(ctx context.Context, s settings, store *outbox.Store) (bool, error) {
	if store.CheckMigrated(ctx) != nil {
		return false, nil // setup migrates first, and a gap is found then
	}
	gaps, err := admin.New(store).Gaps(ctx, 0, 1)
	if err != nil {
		return false, err
	}
	// One that ends a byte later is a transaction that cannot be sent, and skipping it ends it.
	if len(gaps) > 0 && gaps[0].AcceptedAt.IsZero() && gaps[0].To != gaps[0].From+1 {
		return true, nil
	}
	stored, err := store.Checkpoint(ctx)
	if err != nil || s.Source == "" || stored.Source.Slot == "" {
		return false, err
	}
	cfg := s.cdcConfig()
	cfg.Slot = stored.Source.Slot
	kept, err := source.KeepsSlot(ctx, cfg)
	if _, unusable := errors.AsType[*source.Fault](err); unusable {
		return false, nil
	}
	return !kept, err
}

func (g *diffGap) write(b *strings.Builder) {
	if g == nil {
		return
	}
	b.WriteString("\nWhat becomes of the gap by which walhook is stopped\n" +
		"  'walhook setup --accept-gap' sends first what changed in it, by the catalog in force.\n")
	if !g.Looked {
		b.WriteString("  With --source this says of what the source has no more what that catalog says.\n")
	}
	if len(g.ByFile) > 0 {
		fmt.Fprintf(b, "  As the file has them, since the source has no more what that says: %s. Where the\n"+
			"  file has another key, what changed is missed, and the gap's row says so.\n", printable(strings.Join(g.ByFile, ", ")))
	}
	if len(g.Missed) > 0 {
		fmt.Fprintf(b, "  Missed, since neither the source nor the file have them any more: %s.\n", printable(strings.Join(g.Missed, ", ")))
	}
}
