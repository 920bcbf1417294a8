package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// recordKey names a record of the source.
type recordKey struct{ schema, key string }

// ownership is whose a record was when it was last seen, and whether it is gone
// since. Whose a deleted record was stays known until retention ends.
type ownership struct {
	account string // "" for no owner
	deleted bool
	// unknown says that the record was changed while it could not be told whose
	// it is. account is then the one that it was last sent to; nobody is.
	unknown bool
}

// ownerCache remembers which account records belonged to when they were last
// seen. It keeps two generations and drops the older one, so that memory stays
// bounded however many records there are.
type ownerCache struct {
	young, old map[recordKey]ownership
}

// ownerGeneration is how much one generation of the cache holds before the
// next begins; a batch may go beyond.
const ownerGeneration = 50_000

func newOwnerCache() *ownerCache {
	return &ownerCache{young: map[recordKey]ownership{}}
}

func (c *ownerCache) get(k recordKey) (o ownership, known bool) {
	if o, known = c.young[k]; known {
		return o, true
	}
	if o, known = c.old[k]; known {
		c.set(k, o)
	}
	return o, known
}

func (c *ownerCache) set(k recordKey, o ownership) { c.young[k] = o }

func (c *ownerCache) drop(k recordKey) {
	delete(c.young, k)
	delete(c.old, k)
}

// age drops the older generation when the young one is full. It comes before a
// batch and not within it: what was fetched for a batch stays until it is
// routed.
func (c *ownerCache) age() {
	if len(c.young) >= ownerGeneration {
		c.old, c.young = c.young, map[recordKey]ownership{}
	}
}

func (c *ownerCache) forgetSchema(schema string) {
	for _, generation := range []map[recordKey]ownership{c.young, c.old} {
		for k := range generation {
			if k.schema == schema {
				delete(generation, k)
			}
		}
	}
}

const ownersSQL = `
	SELECT o.schema, o.key, o.account, o.deleted_at IS NOT NULL, o.unknown
	FROM unnest($1::text[], $2::text[]) AS w(schema, key)
	JOIN walhook.owner o ON o.schema = w.schema AND o.key = w.key`

// unknownSchemasSQL names the schemas of which some record's owner is not known.
const unknownSchemasSQL = `SELECT DISTINCT schema FROM walhook.owner WHERE unknown`

// loadUnknown reads which schemas have records whose owner is not known: they
// are looked for in each change, whatever its old row says.
func (p *Publisher) loadUnknown(ctx context.Context) error {
	p.unknown, p.forgotten = map[string]bool{}, map[string]bool{}
	names, err := collect[string](p.store.pool.Query(ctx, unknownSchemasSQL))
	if err != nil {
		return fmt.Errorf("read which owners are not known: %w", err)
	}
	for _, name := range names {
		p.unknown[name] = true
	}
	return nil
}

// fetch reads the owners of wanted records into the cache.
func (c *ownerCache) fetch(ctx context.Context, s *Store, wanted map[recordKey]struct{}) error {
	if len(wanted) == 0 {
		return nil
	}
	names, keys := make([]string, 0, len(wanted)), make([]string, 0, len(wanted))
	of := make(map[recordKey]recordKey, len(wanted)) // by their stored form
	for k := range wanted {
		names, keys = append(names, k.schema), append(keys, s.encoding.text(k.key))
		of[recordKey{k.schema, keys[len(keys)-1]}] = k
	}
	rows, err := s.pool.Query(ctx, ownersSQL, names, keys)
	if err == nil {
		var k recordKey
		var o ownership
		_, err = pgx.ForEachRow(rows, []any{&k.schema, &k.key, &o.account, &o.deleted, &o.unknown}, func() error {
			c.set(of[k], o)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read the owners of %d records: %w", len(wanted), err)
	}
	return nil
}
