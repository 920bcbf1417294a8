package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

const (
	descriptionsSQL = `SELECT from_lsn::text, description FROM walhook.table_description ORDER BY relation, from_lsn`

	describeSQL = `
		INSERT INTO walhook.table_description (relation, from_lsn, name, description) VALUES ($1, $2::text::pg_lsn, $3, $4)
		ON CONFLICT (relation, from_lsn) DO UPDATE SET name = excluded.name, description = excluded.description, seen_at = clock_timestamp()`

	undescribeSQL = `DELETE FROM walhook.table_description WHERE relation = $1 AND from_lsn < $2::text::pg_lsn`
)

// describeTimeout bounds how long the reader, which answers its source
// meanwhile, waits for a description to be kept.
const describeTimeout = statementTimeout

var errDescribe = errors.New("keep how tables are described: no answer in time")

// Descriptions returns how the source's tables were described.
func (p *Publisher) Descriptions(ctx context.Context) (list []*schemas.TableDescription, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, describeTimeout, errDescribe)
	defer cancel()
	rows, err := p.store.pool.Query(ctx, descriptionsSQL)
	if err == nil {
		var from string
		var text []byte
		_, err = pgx.ForEachRow(rows, []any{&from, &text}, func() error {
			d := &schemas.TableDescription{}
			if err := json.Unmarshal(text, d); err != nil {
				return err
			}
			list = append(list, d)
			d.From, err = schemas.ParseLSN(from)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read how tables were described: %w", err)
	}
	return list, nil
}

// Describe keeps how the source describes tables.
func (p *Publisher) Describe(ctx context.Context, list []*schemas.TableDescription) error {
	ctx, cancel := context.WithTimeoutCause(ctx, describeTimeout, errDescribe)
	defer cancel()
	err := pgx.BeginFunc(ctx, p.store.pool, func(tx pgx.Tx) error { return describe(ctx, tx, list) })
	if err != nil {
		return fmt.Errorf("keep how %d tables are described: %w", len(list), err)
	}
	return nil
}

func describe(ctx context.Context, tx pgx.Tx, list []*schemas.TableDescription) error {
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
		return fmt.Errorf("drop how a table was described: %w", err)
	}
	return nil
}

// Describe keeps, with the first snapshot, how the source describes tables.
func (w *SnapshotWriter) Describe(ctx context.Context, list []*schemas.TableDescription) error {
	return describe(ctx, w.tx, list)
}
