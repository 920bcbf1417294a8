package outbox

import (
	"context"
	"errors"
	"sync"

	"go.uber.org/zap"

	"walhook/schemas/catalog"
)

// CatalogFollower returns the catalog in force to a process that does not publish.
// It is safe for concurrent use.
type CatalogFollower struct {
	store *Store

	mu      sync.Mutex
	row     int64 // of catalog; 0 for the one that the process was started with
	catalog *catalog.Catalog
	refused int64 // a row that cannot be read, and was logged
}

// FollowCatalog returns what follows the catalog in force. given stands for it before the
// first setup.
func (s *Store) FollowCatalog(given *catalog.Catalog) *CatalogFollower {
	return &CatalogFollower{store: s, catalog: given}
}

// A catalog that replaces another one is another row.
const catalogRowSQL = `SELECT id FROM walhook.catalog WHERE state = 'in_force'`

// Catalog returns the catalog in force: the same pointer until there is another one. While
// the outbox does not answer, that is the last one known.
func (r *CatalogFollower) Catalog(ctx context.Context) *catalog.Catalog {
	c, _ := r.InForce(ctx)
	return c
}

// InForce returns the catalog in force and the id of its row in walhook.catalog, by which
// a statement can tell that what it read belongs to this catalog; 0 before the first setup.
func (r *CatalogFollower) InForce(ctx context.Context) (*catalog.Catalog, int64) {
	ctx, cancel := context.WithTimeoutCause(ctx, pingTimeout, errors.New("timed out"))
	defer cancel()
	var row int64
	err := r.store.pool.QueryRow(ctx, catalogRowSQL).Scan(&row)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || row == r.row || row == r.refused {
		return r.catalog, r.row // the caller's own statements report an error of the outbox
	}
	next, err := r.store.CatalogInForce(ctx)
	switch {
	case err == nil && next != nil:
		r.row, r.catalog = row, next
	case isCatalogError(err):
		r.refused = row
		r.store.log.Error("the catalog in force cannot be read, this process continues with the last one", zap.Error(err))
	}
	return r.catalog, r.row
}
