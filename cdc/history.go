package cdc

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// History stores earlier descriptions of tables, for a backlog that is read after the
// source's catalog has changed.
type History interface {
	// Descriptions returns all descriptions, in order of table and position.
	Descriptions(ctx context.Context) ([]*catalog.TableDescription, error)
	// Describe stores descriptions, and replaces those of the same table and position.
	Describe(ctx context.Context, list []*catalog.TableDescription) error
	// Undescribe drops the descriptions of a table from before a position.
	Undescribe(ctx context.Context, oid uint32, before schemas.LSN) error
}

// history holds the known descriptions of tables. The receiver and the observer share
// it.
type history struct {
	store   History
	changed chan struct{} // gets a signal when a description is added
	mu      sync.Mutex
	byOID   map[uint32][]*catalog.TableDescription // in order of position; guarded by mu
}

func openHistory(ctx context.Context, store History) (*history, error) {
	list, err := store.Descriptions(ctx)
	if err != nil {
		return nil, err
	}
	h := &history{store: store, changed: make(chan struct{}, 1), byOID: map[uint32][]*catalog.TableDescription{}}
	for _, d := range list {
		h.byOID[d.OID] = append(h.byOID[d.OID], d)
	}
	return h, nil
}

// known reports whether the history has a description of a table.
func (h *history) known(oid uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byOID[oid]) > 0
}

// oids returns the tables that the history has descriptions of.
func (h *history) oids() []uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.byOID))
}

// choose finds the description of a relation that was in force for a transaction: of
// those with the relation's columns, the newest that is no newer than the transaction.
// today is the current catalog's, nil for none. The result is nil for a table without
// any description.
func (h *history) choose(r *schemas.Relation, tx begin, today *catalog.TableDescription) *catalog.TableDescription {
	h.mu.Lock()
	versions := slices.Clone(h.byOID[r.OID])
	h.mu.Unlock()
	if today != nil {
		versions = append(versions, today)
	}
	fitting := slices.DeleteFunc(slices.Clone(versions), func(d *catalog.TableDescription) bool { return !d.Fits(r) })
	if len(fitting) > 0 {
		versions = fitting
	}
	if len(versions) == 0 {
		return nil
	}
	for i, d := range slices.Backward(versions) {
		if inForce(d, tx) && !lostKey(versions[:i+1], tx) {
			return d
		}
	}
	return versions[0]
}

// lostKey reports whether the last description has no primary key, but the table had one
// when it was last seen before a transaction committed: the catalog does not show when
// a key was dropped.
func lostKey(versions []*catalog.TableDescription, tx begin) bool {
	for _, d := range slices.Backward(versions) {
		if d.HasPrimaryKey() {
			return d != versions[len(versions)-1]
		}
		if seenBefore(d, tx) {
			return false
		}
	}
	return false
}

// seenBefore reports whether a description was read before a transaction committed.
func seenBefore(d *catalog.TableDescription, tx begin) bool {
	return d.From != 0 && d.From <= tx.commit
}

// inForce reports whether a description was in force for a transaction: it was read
// before the transaction committed, or earlier transactions made it. A transaction that
// changes a table's key or ancestors locks the table, so transaction ids are in the
// order of the changes. Ids wrap around.
func inForce(d *catalog.TableDescription, tx begin) bool {
	return seenBefore(d, tx) || !slices.ContainsFunc(d.Since, func(xid uint32) bool { return int32(xid-tx.xid) > 0 })
}

// find returns the last description of a table by its name; nil for none.
func (h *history) find(name schemas.TableName) (found *catalog.TableDescription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, versions := range h.byOID {
		if n := len(versions); n > 0 && versions[n-1].Table() == name && (found == nil || found.From < versions[n-1].From) {
			found = versions[n-1]
		}
	}
	return found
}

// keptTypes are the kept types of a table, for a transaction.
type keptTypes struct {
	rows []pgjson.TypeRow          // all of them, newest last
	seen map[uint32]pgjson.TypeRow // the last ones that were read before it committed
	tx   begin
}

// types returns the kept types of a table.
func (h *history) types(oid uint32, tx begin) keptTypes {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := keptTypes{seen: map[uint32]pgjson.TypeRow{}, tx: tx}
	for _, d := range h.byOID[oid] {
		kept.rows = append(kept.rows, d.Types...)
		for _, row := range d.Types {
			if d.From <= tx.commit {
				kept.seen[row.OID] = row
			}
		}
	}
	return kept
}

// doubts reports whether a composite type, whose current form is row, may have had other
// attributes for the transaction. altered are the transactions that wrote them.
func (k keptTypes) doubts(row pgjson.TypeRow, altered []int64) bool {
	if was, seen := k.seen[row.OID]; seen && was.SameAs(row) {
		return false
	}
	return slices.ContainsFunc(altered, func(xid int64) bool { return int32(uint32(xid)-k.tx.xid) > 0 })
}

// remember stores descriptions that differ from the last ones, as read at a position.
func (h *history) remember(ctx context.Context, at schemas.LSN, list ...*catalog.TableDescription) error {
	var fresh []*catalog.TableDescription
	h.mu.Lock()
	for _, d := range list {
		versions := h.byOID[d.OID]
		if n := len(versions); n > 0 && (versions[n-1].Same(d) || versions[n-1].From > at) {
			continue
		}
		kept := *d
		kept.From, kept.Added = at, h.added(d)
		if n := len(versions); n > 0 {
			kept.Moved = union(versions[n-1].Moved, d.MovedSince(versions[n-1]))
		}
		fresh = append(fresh, &kept)
	}
	h.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	if err := h.store.Describe(ctx, fresh); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range fresh {
		versions := slices.DeleteFunc(h.byOID[d.OID], func(old *catalog.TableDescription) bool { return old.From == d.From })
		versions = append(versions, d)
		slices.SortFunc(versions, func(a, b *catalog.TableDescription) int { return cmp.Compare(a.From, b.From) })
		h.byOID[d.OID] = versions
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
	return nil
}

// added reports whether a table is a new partition that never had FULL. The caller holds
// mu.
func (h *history) added(d *catalog.TableDescription) bool {
	if d.Identity == schemas.IdentityFull {
		return false
	}
	if versions := h.byOID[d.OID]; len(versions) > 0 {
		return versions[len(versions)-1].Added
	}
	return slices.ContainsFunc(d.Ancestors, func(a catalog.Ancestor) bool { return len(h.byOID[a.OID]) > 0 })
}

// eachNamed calls f with each table that ever had a name of the catalog's.
func (h *history) eachNamed(catalog *catalog.Catalog, f func(oid uint32, name schemas.TableName)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for oid, versions := range h.byOID {
		for _, d := range versions {
			if catalog.Names(d.Table()) {
				f(oid, d.Table())
			}
		}
	}
}

// moved returns the names of columns that may have belonged to another column of the
// table at some time.
func (h *history) moved(d *catalog.TableDescription) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, version := range h.byOID[d.OID] {
		names = union(names, version.Moved)
		if version.From != d.From {
			names = union(names, d.MovedSince(version))
		}
	}
	return names
}

func union(a, b []string) []string {
	for _, name := range b {
		if !slices.Contains(a, name) {
			a = append(slices.Clip(a), name)
		}
	}
	return a
}

// isAdded reports whether the last description of a table says that it is a new
// partition.
func (h *history) isAdded(oid uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	versions := h.byOID[oid]
	return len(versions) > 0 && versions[len(versions)-1].Added
}

// prune drops the descriptions that no later change can need: those with a successor
// from before the stored position, and those of tables that were dropped before it.
// gone has the end of the WAL when a table was first found missing.
func (h *history) prune(ctx context.Context, flushed schemas.LSN, gone map[uint32]schemas.LSN) error {
	h.mu.Lock()
	before := map[uint32]schemas.LSN{}
	for oid, versions := range h.byOID {
		if end, isGone := gone[oid]; isGone && end <= flushed {
			before[oid] = ^schemas.LSN(0)
			continue
		}
		for _, d := range versions[1:] {
			if d.From <= flushed {
				before[oid] = d.From
			}
		}
	}
	h.mu.Unlock()
	for oid, end := range before {
		if err := h.store.Undescribe(ctx, oid, end); err != nil {
			return err
		}
		h.mu.Lock()
		h.byOID[oid] = slices.DeleteFunc(h.byOID[oid], func(d *catalog.TableDescription) bool { return d.From < end })
		if len(h.byOID[oid]) == 0 {
			delete(h.byOID, oid)
		}
		h.mu.Unlock()
	}
	return nil
}
