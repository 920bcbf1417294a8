package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/migrations"
	"walhook/schemas"
)

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
