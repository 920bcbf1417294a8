package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

const (
	descriptionsSQL = `
		SELECT relation::text, from_lsn::text, coalesce(description::text, '') FROM walhook.table_description
		ORDER BY relation, from_lsn`

	describeSQL = `
		INSERT INTO walhook.table_description (relation, from_lsn, name, description) VALUES ($1, $2::text::pg_lsn, $3, $4)
		ON CONFLICT (relation, from_lsn) DO UPDATE SET name = excluded.name, description = excluded.description, seen_at = clock_timestamp()`

	undescribeSQL = `DELETE FROM walhook.table_description WHERE relation = $1 AND from_lsn < $2::text::pg_lsn`
)

// describeTimeout bounds how long the reader, which answers its source
// meanwhile, waits for a description to be kept.
const describeTimeout = statementTimeout

var errDescribe = errors.New("store table descriptions: timed out")

// Descriptions returns how the source's tables were described. One that cannot be
// read is left out: what committed in its time is read as the table is described
// now where that fits, and listed as unrouted where it does not.
func (p *Publisher) Descriptions(ctx context.Context) (list []*catalog.TableDescription, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, describeTimeout, errDescribe)
	defer cancel()
	rows, err := p.store.pool.Query(ctx, descriptionsSQL)
	var bad []string
	if err == nil {
		var relation, from, text string
		_, err = pgx.ForEachRow(rows, []any{&relation, &from, &text}, func() error {
			if d, ok := readDescription(relation, from, text); ok {
				list = append(list, d)
			} else {
				bad = append(bad, relation+" "+from)
			}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read table descriptions: %w", err)
	}
	for _, item := range bad {
		p.store.setAside(ctx, loopDescriptions, item, 0, asideUnreadable, &badItem{asideUnreadable, "the table description cannot be read"})
	}
	return list, nil
}

func readDescription(relation, from, text string) (*catalog.TableDescription, bool) {
	d := &catalog.TableDescription{}
	if json.Unmarshal([]byte(text), d) != nil || strconv.FormatUint(uint64(d.OID), 10) != relation {
		return nil, false
	}
	var err error
	d.From, err = schemas.ParseLSN(from)
	return d, err == nil
}

// Describe keeps how the source describes tables.
func (p *Publisher) Describe(ctx context.Context, list []*catalog.TableDescription) error {
	ctx, cancel := context.WithTimeoutCause(ctx, describeTimeout, errDescribe)
	defer cancel()
	err := pgx.BeginFunc(ctx, p.store.pool, func(tx pgx.Tx) error { return describe(ctx, tx, list) })
	if err != nil {
		return fmt.Errorf("store %d table descriptions: %w", len(list), err)
	}
	return nil
}

func describe(ctx context.Context, tx pgx.Tx, list []*catalog.TableDescription) error {
	batch := &pgx.Batch{}
	for _, d := range list {
		text, err := json.Marshal(d)
		if err != nil {
			return err
		}
		batch.Queue(describeSQL, d.OID, d.From.String(), schemas.Storable(d.Table().String()), string(text))
	}
	return tx.SendBatch(ctx, batch).Close()
}

// Undescribe drops how a table was described from places before before on.
func (p *Publisher) Undescribe(ctx context.Context, relation uint32, before schemas.LSN) error {
	ctx, cancel := context.WithTimeoutCause(ctx, describeTimeout, errDescribe)
	defer cancel()
	if _, err := p.store.pool.Exec(ctx, undescribeSQL, relation, before.String()); err != nil {
		return fmt.Errorf("drop a table description: %w", err)
	}
	return nil
}

// Describe keeps, with the first snapshot, how the source describes tables.
func (w *SnapshotWriter) Describe(ctx context.Context, list []*catalog.TableDescription) error {
	return describe(ctx, w.tx, list)
}
