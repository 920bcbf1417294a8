package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"walhook/migrations"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// A gap that is found again, as at every start until somebody acts, is one.
const (
	recordGapSQL = `
		INSERT INTO walhook.gap (from_lsn, to_lsn, reason, other_history)
		SELECT $1::text::pg_lsn, nullif($2::text, '0/0')::pg_lsn, $3, $4
		WHERE NOT EXISTS (SELECT FROM walhook.gap WHERE accepted_at IS NULL AND from_lsn = $1::text::pg_lsn)`

	acceptGapSQL = `
		WITH noted AS (UPDATE walhook.gap SET accepted_at = clock_timestamp() WHERE accepted_at IS NULL AND from_lsn = $1::text::pg_lsn RETURNING id)
		INSERT INTO walhook.gap (from_lsn, to_lsn, reason, accepted_at, other_history)
		SELECT $1::text::pg_lsn, nullif($2::text, '0/0')::pg_lsn, $3, clock_timestamp(), $4 WHERE NOT EXISTS (SELECT FROM noted)`

	// What was committed after the gap was found, and before the new snapshot, is in it
	// too. Positions of another history cannot be compared.
	acceptGapsSQL = `
		UPDATE walhook.gap SET accepted_at = clock_timestamp(), to_lsn = CASE WHEN from_lsn <= $1::text::pg_lsn THEN greatest(to_lsn, $1::text::pg_lsn) ELSE to_lsn END
		WHERE accepted_at IS NULL`
)

// RecordGap keeps a durable note of a gap until it is accepted.
func (p *Publisher) RecordGap(ctx context.Context, gap schemas.Gap) error {
	sql := recordGapSQL
	if gap.Accepted {
		sql = acceptGapSQL
	}
	_, err := p.store.pool.Exec(ctx, sql, gap.From.String(), gap.To.String(), gap.Reason, gap.OtherHistory)
	if err != nil {
		return fmt.Errorf("record the gap after %s: %w", gap.From, err)
	}
	return nil
}

const (
	followSQL = `UPDATE walhook.source SET timeline = $1, database = $2, changed_at = clock_timestamp() WHERE (timeline, database) <> ($1, $2)`

	// What was changed on the source is undone under the new name.
	followChangesSQL = `
		UPDATE walhook.source_change c SET database = $1 FROM walhook.source s
		WHERE c.system_id = s.system_id AND c.database = s.database AND c.database <> $1`
)

// Follow notes that the source has moved on to another timeline, or that its
// database has another name. What is stored lies on both.
func (p *Publisher) Follow(ctx context.Context, timeline int32, database string) error {
	err := p.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, followChangesSQL, database); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, followSQL, timeline, database)
		return err
	})
	if err != nil {
		return fmt.Errorf("record the source's timeline %d and database %s: %w", timeline, database, err)
	}
	return nil
}

const (
	keepSourceChangeSQL = `
		INSERT INTO walhook.source_change (system_id, database, database_oid, kind, relation, name, before, after)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`

	// An outbox that setup has not been run for since lacks the column.
	sourceChangesSQL = `
		SELECT id, at, system_id, database, coalesce(to_jsonb(c) ->> 'database_oid', '0')::oid, kind, relation, name, before, after
		FROM walhook.source_change c WHERE undone_at IS NULL ORDER BY id`

	undoneSQL = `UPDATE walhook.source_change SET undone_at = clock_timestamp() WHERE id = $1`

	hasSourceChangesSQL = `SELECT to_regclass('walhook.source_change') IS NOT NULL AND to_regclass($1) IS NOT NULL`
)

// KeepSourceChange notes a change of the source before it is made.
func (s *Store) KeepSourceChange(ctx context.Context, c schemas.SourceChange) (id int64, err error) {
	err = s.pool.QueryRow(ctx, keepSourceChangeSQL, c.SystemID, c.Database, c.DatabaseOID, c.Kind, c.Relation, c.Name, c.Before, c.After).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("record a change of the source: %w", err)
	}
	return id, nil
}

// SourceChanges lists what walhook changed on sources and did not undo, oldest
// first; nothing where there is no outbox, or one from before this was noted.
func (s *Store) SourceChanges(ctx context.Context) ([]schemas.SourceChange, error) {
	var known bool
	err := s.pool.QueryRow(ctx, hasSourceChangesSQL, migrations.VersionTable).Scan(&known)
	if err != nil || !known {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, sourceChangesSQL)
	var list []schemas.SourceChange
	if err == nil {
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schemas.SourceChange])
	}
	if err != nil {
		return nil, fmt.Errorf("read the changes made on the source: %w", err)
	}
	return list, nil
}

// SourceChangeUndone notes that a change is undone, or was not made.
func (s *Store) SourceChangeUndone(ctx context.Context, id int64) error {
	if _, err := s.pool.Exec(ctx, undoneSQL, id); err != nil {
		return fmt.Errorf("record what was undone on the source: %w", err)
	}
	return nil
}

// KeepSourceChange is [Store.KeepSourceChange].
func (p *Publisher) KeepSourceChange(ctx context.Context, c schemas.SourceChange) (id int64, err error) {
	return p.store.KeepSourceChange(ctx, c)
}

// SourceChangeUndone is [Store.SourceChangeUndone].
func (p *Publisher) SourceChangeUndone(ctx context.Context, id int64) error {
	return p.store.SourceChangeUndone(ctx, id)
}

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
	w.described = list
	return describe(ctx, w.tx, list)
}
