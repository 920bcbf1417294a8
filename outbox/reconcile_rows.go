package outbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// gapWriter renders the rows of one schema.
type gapWriter struct {
	r       *reconciliation
	plan    *catalog.Plan
	keys    []string
	rows    []schemas.Tuple
	bytes   int
	scratch []byte
}

func (g *gapWriter) add(ctx context.Context, key string, row schemas.Tuple) error {
	copied := slices.Clone(row)
	for i := range copied {
		copied[i].Text = slices.Clone(copied[i].Text)
		g.bytes += len(copied[i].Text)
	}
	g.keys, g.rows = append(g.keys, g.r.w.store.encoding.text(key)), append(g.rows, copied)
	if len(g.rows) < gapRows && g.bytes < gapBytes {
		return nil
	}
	return g.flush(ctx)
}

const wantedRowsSQL = `SELECT key FROM walhook.snapshot_missed WHERE schema = $1 AND kind <> 'delete' AND key = ANY ($2)`

func (g *gapWriter) flush(ctx context.Context) error {
	if len(g.keys) == 0 {
		return nil
	}
	wanted, err := collect[string](g.r.w.tx.Query(ctx, wantedRowsSQL, g.plan.Schema.Name, g.keys))
	if err != nil {
		return err
	}
	is := map[string]bool{}
	for _, key := range wanted {
		is[key] = true
	}
	var list [][]any
	for i, key := range g.keys {
		if !is[key] {
			continue
		}
		is[key] = false // a table without a unique key has it twice
		if row, ok := g.render(key, schemas.Update, g.rows[i]); ok {
			list = append(list, row)
		}
	}
	g.keys, g.rows, g.bytes = g.keys[:0], g.rows[:0], 0
	return g.copy(ctx, list)
}

// render makes a row of snapshot_row.
func (g *gapWriter) render(key string, kind schemas.Kind, row schemas.Tuple) (stored []any, ok bool) {
	about, masked := "", []byte(nil)
	body, scratch, err := g.plan.AppendEnvelope(nil, g.scratch, kind, row, false)
	g.scratch = scratch
	if err == nil && g.plan.Account != nil {
		if of, carried := g.plan.AccountOf(row); carried {
			about = of.ID
		}
		masked, g.scratch, err = g.plan.AppendEnvelope(nil, g.scratch, kind, row, true)
	}
	if err != nil {
		g.r.w.store.log.Error("record of a gap cannot be rendered and is not sent", zap.Int64("gap", g.r.gap), zap.String("schema", g.plan.Schema.Name), zap.Error(err))
		return nil, false
	}
	return []any{g.plan.Schema.Name, key, kind == schemas.Delete, g.r.w.store.encoding.text(schemas.Storable(about)), body, masked}, true
}

func (g *gapWriter) copy(ctx context.Context, list [][]any) error {
	_, err := g.r.w.tx.CopyFrom(ctx, pgx.Identifier{"walhook", "snapshot_row"}, []string{"schema", "key", "gone", "about", "body", "masked"}, pgx.CopyFromRows(list))
	if err != nil {
		return fmt.Errorf("copy %d rows of a gap: %w", len(list), err)
	}
	return nil
}

const missedDeletesSQL = `
	SELECT key FROM walhook.snapshot_missed WHERE schema = $1 AND kind IN ('delete', 'move') AND ($2::text IS NULL OR key > $2)
	ORDER BY key LIMIT $3`

// deletes renders the key fields of records that are gone.
func (g *gapWriter) deletes(ctx context.Context, source catalog.GapSource) error {
	columns, unknown := len(g.plan.KeyColumns()), 0
	for last := (*string)(nil); ; { // a key may be empty
		stored, err := collect[string](g.r.w.tx.Query(ctx, missedDeletesSQL, g.plan.Schema.Name, last, gapRows))
		if err != nil {
			return err
		}
		if len(stored) == 0 {
			break
		}
		last = &stored[len(stored)-1]
		var keys [][][]byte
		var of []string
		for _, key := range stored {
			texts, ok := schemas.SplitKey(g.r.w.store.encoding.original(key), columns)
			if !ok {
				unknown++
				continue
			}
			keys, of = append(keys, texts), append(of, key)
		}
		rows, err := source.KeyRows(ctx, g.plan.Schema.Name, keys)
		if err != nil {
			return err
		}
		var list [][]any
		for i, row := range rows {
			if one, ok := g.render(of[i], schemas.Delete, row); ok {
				list = append(list, one)
			}
		}
		if err := g.copy(ctx, list); err != nil {
			return err
		}
	}
	if unknown > 0 {
		g.r.w.store.log.Error("records are gone whose keys the outbox keeps as hashes only: their deletes are not sent",
			zap.Int64("gap", g.r.gap), zap.String("schema", g.plan.Schema.Name), zap.Int("records", unknown))
	}
	return nil
}
