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

// History keeps how tables were described at their time, for a backlog that is
// read when the source's catalog has moved on.
type History interface {
	// Descriptions returns all that is kept, in order of table and place.
	Descriptions(ctx context.Context) ([]*catalog.TableDescription, error)
	// Describe keeps descriptions; one of the same table and place is replaced.
	Describe(ctx context.Context, list []*catalog.TableDescription) error
	// Undescribe drops what is kept of a table from places before a place.
	Undescribe(ctx context.Context, oid uint32, before schemas.LSN) error
}

// history is what a session knows of the tables' past. The receiver and the
// observer share it.
type history struct {
	store   History
	changed chan struct{} // filled when something new is remembered
	mu      sync.Mutex
	byOID   map[uint32][]*catalog.TableDescription // by place, rising
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

// known says whether a table was ever described.
func (h *history) known(oid uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byOID[oid]) > 0
}

// oids are the tables that were ever described.
func (h *history) oids() []uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.byOID))
}

// choose finds the description that was in force when a transaction described
// a relation: of those whose columns are the relation's, the newest that is no
// newer than the transaction. today is the catalog's, nil for none. The result
// is nil when nobody ever saw the table.
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

// lostKey says whether the last description has no primary key, and had one when
// the table was last seen before a transaction committed: a key that was dropped
// leaves no trace of when.
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

// seenBefore says whether a description was made before a transaction
// committed.
func seenBefore(d *catalog.TableDescription, tx begin) bool {
	return d.From != 0 && d.From <= tx.commit
}

// inForce says whether a description held for a transaction: what was seen
// before it committed did, and what was made by an earlier transaction. Who
// changes a table's key or place keeps everybody else out of it, so that the
// order of their ids is that of their changes. Ids wrap around.
func inForce(d *catalog.TableDescription, tx begin) bool {
	return seenBefore(d, tx) || !slices.ContainsFunc(d.Since, func(xid uint32) bool { return int32(xid-tx.xid) > 0 })
}

// find gives what is known last of a table by its name; nil for nothing.
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

// keptTypes is what is remembered of the types of a table whose rows a
// transaction wrote.
type keptTypes struct {
	rows []pgjson.TypeRow          // whatever was known, newest last
	seen map[uint32]pgjson.TypeRow // as they were when last seen before it committed
	tx   begin
}

// types collects what was ever known of the types of a table.
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

// doubts says whether a composite type, which is as row has it now, may have had
// other attributes for the transaction: altered are the transactions that wrote
// them.
func (k keptTypes) doubts(row pgjson.TypeRow, altered []int64) bool {
	if was, seen := k.seen[row.OID]; seen && was.SameAs(row) {
		return false
	}
	return slices.ContainsFunc(altered, func(xid int64) bool { return int32(uint32(xid)-k.tx.xid) > 0 })
}

// remember keeps descriptions that say something new, as seen at a place.
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

// added says whether a table is a new partition that never was under FULL. mu is
// held.
func (h *history) added(d *catalog.TableDescription) bool {
	if d.Identity == schemas.IdentityFull {
		return false
	}
	if versions := h.byOID[d.OID]; len(versions) > 0 {
		return versions[len(versions)-1].Added
	}
	return slices.ContainsFunc(d.Ancestors, func(a catalog.Ancestor) bool { return len(h.byOID[a.OID]) > 0 })
}

// eachNamed tells of the tables that had a name of the catalog's.
func (h *history) eachNamed(catalog *catalog.Catalog, tell func(oid uint32, name schemas.TableName)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for oid, versions := range h.byOID {
		for _, d := range versions {
			if catalog.Names(d.Table()) {
				tell(oid, d.Table())
			}
		}
	}
}

// moved names the columns of a table that may have been another at some time, as
// far as is known.
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

// isAdded says whether a table was last described as a new partition.
func (h *history) isAdded(oid uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	versions := h.byOID[oid]
	return len(versions) > 0 && versions[len(versions)-1].Added
}

// prune drops what no change that is still to come can need: versions that were
// followed by another before the stored position, and tables that were gone
// before it. gone says where the log ended when a table was first found gone.
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
