package cdc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/schemas"
)

// SourceChanges keeps what walhook changes on a source, so that [PlanTeardown]
// can undo it.
type SourceChanges interface {
	// KeepSourceChange notes a change before it is made.
	KeepSourceChange(ctx context.Context, c schemas.SourceChange) (id int64, err error)
	// SourceChangeUndone notes that a change is undone, or was not made.
	SourceChangeUndone(ctx context.Context, id int64) error
}

const (
	// Whoever may connect may ask for them.
	sourceIDSQL = `
		SELECT system_identifier::text, d.datname::text, d.oid FROM pg_catalog.pg_control_system(), pg_catalog.pg_database d
		WHERE d.datname = pg_catalog.current_database()`

	// The identity as it is kept, of a table of the row "c": of an index its OID,
	// its columns and its name, of which the first two survive a renaming, and
	// the last two a REINDEX.
	identityTextSQL = `CASE c.relreplident WHEN 'i' THEN 'i ' || coalesce((
		SELECT i.indexrelid || ':' || pg_catalog.array_to_string(i.indkey::int2[], ',') || ' ' || pg_catalog.quote_ident(x.relname)
		FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
		WHERE i.indrelid = c.oid AND i.indisreplident), '') ELSE c.relreplident::text END`

	identityOfSQL = `
		SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), ` + identityTextSQL + `
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`
)

// execer runs a statement.
type execer interface {
	querier
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// changeSource runs a statement that changes the source and notes it first, so
// that what is made is always known. One that fails is no change.
func changeSource(ctx context.Context, conn execer, kept SourceChanges, sql string, change schemas.SourceChange) error {
	if err := conn.QueryRow(ctx, sourceIDSQL).Scan(&change.SystemID, &change.Database, &change.DatabaseOID); err != nil {
		return fmt.Errorf("ask which source this is: %w", err)
	}
	id, err := kept.KeepSourceChange(ctx, change)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, sql); err != nil {
		return errors.Join(err, kept.SourceChangeUndone(ctx, id))
	}
	return nil
}

// setIdentity gives a table another replica identity ('f', 'd' or 'n'), noting
// the one that it had. The error is the server's.
func setIdentity(ctx context.Context, conn execer, kept SourceChanges, oid uint32, to schemas.ReplicaIdentity) error {
	var name, before string
	err := conn.QueryRow(ctx, identityOfSQL, oid).Scan(&name, &before)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && before == string(to) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the replica identity of table %d: %w", oid, err)
	}
	return changeSource(ctx, conn, kept, identitySQL(name, string(to)), schemas.SourceChange{
		Kind: schemas.IdentityChange, Relation: oid, Name: name, Before: before, After: string(to),
	})
}

// identitySQL sets a table's replica identity, given as it is kept.
func identitySQL(table, identity string) string {
	kind, _, _ := strings.Cut(identity, " ")
	what := map[string]string{"d": "DEFAULT", "f": "FULL", "n": "NOTHING", "i": "USING INDEX " + indexOf(identity).name}[kind]
	return "ALTER TABLE " + table + " REPLICA IDENTITY " + what
}

// identityIndex is the index of a replica identity as it is kept; zero for
// none. Outboxes from before oid and columns were noted hold the name alone.
type identityIndex struct {
	oid     uint32
	columns string // their numbers, separated by commas
	name    string // as SQL takes it
}

func indexOf(identity string) (index identityIndex) {
	rest, ok := strings.CutPrefix(identity, "i ")
	if !ok {
		return index
	}
	index.name = rest
	where, name, _ := strings.Cut(rest, " ")
	oid, columns, found := strings.Cut(where, ":")
	if n, err := strconv.ParseUint(oid, 10, 32); found && err == nil { // a name never begins with a digit
		index.oid, index.columns, index.name = uint32(n), columns, name
	}
	return index
}
