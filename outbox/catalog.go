package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// The outbox keeps the catalog in force, so that every process routes and reads by the
// same one, whatever file it was started with. 'walhook setup' puts a changed one beside
// it, and the publisher adopts that at one position of the source's WAL.

// The states of a row of walhook.catalog.
const (
	catalogInForce = "in_force"
	catalogPending = "pending"
)

const (
	hasCatalogsSQL = `SELECT to_regclass('walhook.catalog') IS NOT NULL`

	catalogSQL = `SELECT content, coalesce(note, '') FROM walhook.catalog WHERE state = $1`

	askCatalogSQL = `
		INSERT INTO walhook.catalog (state, fingerprint, content) VALUES ('pending', $1, $2)
		ON CONFLICT (state) WHERE state <> 'past' DO UPDATE SET
			fingerprint = excluded.fingerprint, content = excluded.content, asked_at = clock_timestamp(), note = NULL
		WHERE catalog.content <> excluded.content`

	dropPendingSQL = `DELETE FROM walhook.catalog WHERE state = 'pending'`

	noteCatalogSQL = `UPDATE walhook.catalog SET note = $2 WHERE state = 'pending' AND content = $1 AND note IS DISTINCT FROM $2`

	pastCatalogSQL = `UPDATE walhook.catalog SET state = 'past' WHERE state = 'in_force'`

	putCatalogSQL = `
		INSERT INTO walhook.catalog (state, fingerprint, content, adopted_at, from_lsn)
		VALUES ('in_force', $1, $2, clock_timestamp(), $3::text::pg_lsn)`

	// Where no catalog is in force yet: an older walhook set this outbox up.
	firstCatalogSQL = `
		INSERT INTO walhook.catalog (state, fingerprint, content, adopted_at)
		SELECT 'in_force', $1, $2, clock_timestamp() FROM walhook.source WHERE state = 'ready' AND catalog = $1
		ON CONFLICT DO NOTHING`

	// Enough to see what was in force when.
	forgetCatalogsSQL = `
		DELETE FROM walhook.catalog WHERE state = 'past' AND id < (
			SELECT id FROM walhook.catalog WHERE state = 'past' ORDER BY id DESC OFFSET 19 LIMIT 1)`
)

// CatalogInForce returns the catalog by which changes are routed; nil where none is
// stored, as before the first setup.
func (s *Store) CatalogInForce(ctx context.Context) (*catalog.Catalog, error) {
	c, _, err := s.readCatalog(ctx, catalogInForce)
	return c, err
}

// PendingCatalog returns the catalog that setup asked for and that is not in force yet,
// and why not, where that is known; nil for none.
func (s *Store) PendingCatalog(ctx context.Context) (c *catalog.Catalog, note string, err error) {
	return s.readCatalog(ctx, catalogPending)
}

func (s *Store) readCatalog(ctx context.Context, state string) (c *catalog.Catalog, note string, err error) {
	var has bool
	var content []byte
	err = s.pool.QueryRow(ctx, hasCatalogsSQL).Scan(&has)
	if err == nil && has {
		err = s.pool.QueryRow(ctx, catalogSQL, state).Scan(&content, &note)
	}
	switch {
	case isNoRows(err) || err == nil && !has:
		return nil, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("read the stored catalog: %w", err)
	}
	if c, err = catalog.ParseStored(content); err != nil {
		return nil, note, &catalogError{state, err}
	}
	return c, note, nil
}

// catalogError says that a stored catalog cannot be read.
type catalogError struct {
	state string
	err   error
}

func (e *catalogError) Error() string {
	return fmt.Sprintf("the catalog in the outbox (walhook.catalog, state %s) cannot be read: a newer walhook may have stored it, so run that one: %v", e.state, e.err)
}

func (e *catalogError) Unwrap() error { return e.err }

func isCatalogError(err error) bool {
	_, is := errors.AsType[*catalogError](err)
	return is
}

// AskCatalog asks the publisher to adopt a catalog. It replaces an earlier request; asking
// for the catalog in force withdraws one.
func (s *Store) AskCatalog(ctx context.Context, c *catalog.Catalog) error {
	content := c.YAML()
	if len(content) > catalog.MaxBytes {
		return fmt.Errorf("the catalog has %d bytes with the built-in hooks, at most %d can be stored", len(content), catalog.MaxBytes)
	}
	inForce, err := s.CatalogInForce(ctx)
	if err != nil {
		return err
	}
	if inForce != nil && inForce.Same(c) {
		_, err = s.pool.Exec(ctx, dropPendingSQL)
	} else {
		_, err = s.pool.Exec(ctx, askCatalogSQL, c.Fingerprint(), content)
	}
	if err != nil {
		return fmt.Errorf("store the new catalog: %w", err)
	}
	return nil
}

// Catalog is the catalog by which this publisher routes: since a TakeOver, the one in
// force.
func (p *Publisher) Catalog() *catalog.Catalog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.catalog
}

// PendingCatalog is [Store.PendingCatalog], without the note.
func (p *Publisher) PendingCatalog(ctx context.Context) (*catalog.Catalog, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pingTimeout, errors.New("timed out"))
	defer cancel()
	c, _, err := p.store.PendingCatalog(ctx)
	return c, err
}

// NotePending stores why a pending catalog is not in force yet, for setup and status.
func (p *Publisher) NotePending(ctx context.Context, pending *catalog.Catalog, why string) error {
	if _, err := p.store.pool.Exec(ctx, noteCatalogSQL, pending.YAML(), p.store.encoding.text(why)); err != nil {
		return fmt.Errorf("store why the catalog is not adopted yet: %w", err)
	}
	return nil
}

// takeCatalog makes the stored catalog the one that this publisher routes by. An outbox
// that has none takes the publisher's, if that is the one that it was set up with.
func (p *Publisher) takeCatalog(ctx context.Context) error {
	if _, err := p.store.pool.Exec(ctx, firstCatalogSQL, p.catalog.Fingerprint(), p.catalog.YAML()); err != nil {
		return fmt.Errorf("store the catalog: %w", err)
	}
	c, err := p.store.CatalogInForce(ctx)
	if err != nil {
		return err
	}
	if c == nil || c.Same(p.catalog) {
		return nil
	}
	if !p.otherCatalog {
		p.otherCatalog = true
		p.log.Warn("the catalog in force is not the one that this process was started with: 'walhook setup' with that file puts it in force, without a gap")
	}
	p.setCatalog(c)
	return nil
}

// setCatalog makes a catalog the one that is routed by from the next TakeOver on.
func (p *Publisher) setCatalog(c *catalog.Catalog) {
	p.catalog = c
	p.store.metrics.initChanges(c)
}

// putCatalogTx puts the publisher's catalog in force from a position on; 0 where that is
// not known.
func (p *Publisher) putCatalogTx(ctx context.Context, tx pgx.Tx, c *catalog.Catalog, from schemas.LSN) error {
	var at *string
	if from != 0 {
		text := from.String()
		at = &text
	}
	for _, one := range []struct {
		sql  string
		args []any
	}{
		{pastCatalogSQL, nil},
		{putCatalogSQL, []any{c.Fingerprint(), c.YAML(), at}},
		{forgetCatalogsSQL, nil},
	} {
		if _, err := tx.Exec(ctx, one.sql, one.args...); err != nil {
			return fmt.Errorf("put the catalog in force: %w", err)
		}
	}
	return nil
}

const (
	adoptedSQL = `DELETE FROM walhook.catalog WHERE state = 'pending' AND content = $1`

	adoptSourceSQL = `UPDATE walhook.source SET catalog = $1, changed_at = clock_timestamp() WHERE state = 'ready'`

	// Of the new catalog's schemas that do not keep theirs. Those of schemas that have ended
	// are never asked for, and maintenance deletes them bit by bit.
	dropOwnersSQL = `DELETE FROM walhook.owner WHERE schema = ANY ($1) AND NOT schema = ANY (coalesce($2::text[], '{}'))`

	// Of a schema whose rows were read the outbox has every record, and of one that is kept
	// as many as before.
	adoptLedgerSQL = `
		WITH former AS (DELETE FROM walhook.ledger WHERE NOT schema = ANY (coalesce($1::text[], '{}') || coalesce($2::text[], '{}')))
		INSERT INTO walhook.ledger (schema) SELECT unnest($2::text[]) ON CONFLICT DO NOTHING`

	emptyAccountsSQL = `TRUNCATE walhook.account, walhook.account_column`

	pointSQL = `SELECT flush_lsn::text FROM walhook.position ORDER BY id DESC LIMIT 1`
)

// errNotPending says that setup has asked for another catalog meanwhile, or for none.
var errNotPending = errors.New("the catalog is no longer the one that setup asked for")

// Adopt puts a pending catalog in force, in one transaction. Everything that committed
// before point must be stored, and nothing else; what commits from there on is routed by
// the new catalog. fill writes what difference asks to be read, as it was at point. Where
// nothing is read, point is 0 and the stored position is the point.
//
// TakeOver comes next.
func (p *Publisher) Adopt(ctx context.Context, next *catalog.Catalog, point schemas.LSN, fill func(catalog.SnapshotSink) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	difference := p.catalog.DifferenceTo(next)
	err := p.transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, adoptedSQL, next.YAML())
		if err == nil && tag.RowsAffected() == 0 {
			err = errNotPending
		}
		if err != nil {
			return err
		}
		// Many rows may go.
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		if err := keepFormerOwnersTx(ctx, tx, difference); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, dropOwnersSQL, schemaNames(next), difference.Kept); err != nil {
			return err
		}
		if difference.Reads() {
			if err := p.adoptRowsTx(ctx, tx, next, difference, point, fill); err != nil {
				return err
			}
		} else {
			var stored string
			if err := tx.QueryRow(ctx, pointSQL).Scan(&stored); err != nil {
				return fmt.Errorf("read the stored position: %w", err)
			}
			if point, err = schemas.ParseLSN(stored); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, adoptLedgerSQL, difference.Kept, difference.Owners); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, adoptSourceSQL, next.Fingerprint()); err != nil {
			return err
		}
		// A cursor may be that of another key, or behind a schema that has begun.
		if _, err := tx.Exec(ctx, restartResyncSQL+"true"); err != nil {
			return err
		}
		return p.putCatalogTx(ctx, tx, next, point)
	})
	if err != nil {
		return fmt.Errorf("adopt the changed catalog: %w", err)
	}
	p.live = false
	p.setCatalog(next)
	p.otherCatalog = false
	return nil
}

func schemaNames(c *catalog.Catalog) (names []string) {
	for _, s := range c.Schemas {
		names = append(names, s.Name)
	}
	return names
}

// adoptRowsTx writes what a changed catalog needs of the source's rows.
func (p *Publisher) adoptRowsTx(ctx context.Context, tx pgx.Tx, next *catalog.Catalog, difference catalog.Difference, point schemas.LSN, fill func(catalog.SnapshotSink) error) error {
	w := &SnapshotWriter{tx: tx, store: p.store}
	// Reading the source takes as long as it takes.
	prepare := []string{"SET LOCAL idle_in_transaction_session_timeout = 0"}
	if difference.Accounts {
		prepare = append(prepare, snapshotTableSQL, emptyAccountsSQL)
	}
	for _, sql := range prepare {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := fill(w); err != nil {
		return err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	if err := noteFormerOwnersTx(ctx, tx, difference); err != nil {
		return err
	}
	if difference.Accounts {
		if err := p.mergeAccountsTx(ctx, tx, next, false); err != nil {
			return err
		}
	}
	return p.putPositionTx(ctx, tx, point)
}
