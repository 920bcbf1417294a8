package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/schemas"
)

// lockTimeoutSQL bounds how long a statement of ours may queue for a table:
// everybody who comes after it waits behind.
const lockTimeoutSQL = "SET lock_timeout = '3s'"

// Apply runs the plan's statements and notes in kept what teardown is to undo.
// One that is refused for lack of a right is a warning where walhook can do
// without it, otherwise a [*Fault].
func (p *Plan) Apply(ctx context.Context, cfg Config, kept SourceChanges, log *zap.Logger) error {
	conn, err := cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	if _, err := conn.Exec(ctx, lockTimeoutSQL); err != nil {
		return fmt.Errorf("set lock_timeout: %w", err)
	}
	for _, warning := range p.Warnings {
		log.Warn(warning)
	}
	for _, statement := range p.Statements {
		err := statement.run(ctx, conn, kept)
		if err == nil {
			log.Info("source prepared", zap.String("sql", statement.SQL))
			continue
		}
		pgErr, refused := errors.AsType[*pgconn.PgError](err)
		if refused && pgErr.Code == codeInsufficientRights && statement.Optional {
			log.Warn("not allowed, going on without: deletes will carry only the key, and values that an update did not touch may be absent",
				zap.String("sql", statement.SQL), zap.String("needs", statement.Needs))
			continue
		}
		if sqlState(err) == codeLockNotAvailable {
			return &Fault{Problem: fmt.Sprintf("cannot run %q on the source: a running transaction holds the table", statement.SQL),
				Mend: "run setup again when it is over", Err: err}
		}
		return &Fault{Problem: fmt.Sprintf("cannot run %q on the source", statement.SQL),
			Mend: fmt.Sprintf("it needs %s; let a DBA run what 'walhook setup --dry-run' prints, then run setup again", statement.Needs),
			Err:  err}
	}
	return nil
}

func (s Statement) run(ctx context.Context, conn execer, kept SourceChanges) error {
	switch {
	case s.table != 0:
		return setIdentity(ctx, conn, kept, s.table, s.identity)
	case s.Undo != "":
		return changeSource(ctx, conn, kept, s.SQL, schemas.SourceChange{Kind: schemas.PublicationChange, Name: s.publication, After: s.SQL})
	}
	_, err := conn.Exec(ctx, s.SQL)
	return err
}
