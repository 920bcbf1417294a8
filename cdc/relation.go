package cdc

import (
	"context"
	"fmt"
	"slices"
	"time"

	"walhook/cdc/source"
	"walhook/internal/retry"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// fluidTypes are composite types that a relation's columns are made of.
type compositeTypes struct {
	rows    []pgjson.TypeRow
	version string      // what ALTER TYPE changes
	doubted bool        // of one it was not known how it was
	commit  schemas.LSN // of the transaction in which they were last compared
}

// relation completes a relation of the stream with what the stream does not
// say: primary key, types, and the table that it is a partition of. It is taken
// from the description that was in force at the time, be it today's catalog's
// or one that was kept.
func (s *stream) relation(ctx context.Context, c *cursor) error {
	relation, err := decodeRelation(c)
	if err != nil {
		return fmt.Errorf("relation: %w", err)
	}
	visible, err := s.untilVisible(ctx, func() (bool, error) { return s.source.Shows(ctx, s.tx.xid) })
	if err != nil {
		return err
	}
	today, err := s.source.Describe(ctx, relation.OID)
	if err != nil {
		return err
	}
	described := s.history.choose(relation, s.tx, today)
	s.leaf(relation, described)
	if described != nil {
		s.nameRoot(relation, described)
	}
	s.findKey(relation, described)
	if described != nil {
		described.Compare(relation)
		if schema := s.r.cfg.Catalog.SchemaOf(relation.Table()); schema != nil {
			relation.OwnerMoved = !visible || slices.Contains(s.history.moved(described), schema.Owner.Column)
		}
	}
	s.r.cfg.Catalog.Refer(relation, s.history.find)
	composite, err := s.describeTypes(ctx, relation, s.history.types(relation.OID, s.tx))
	if err != nil {
		return err
	}
	s.findUnknown(relation, described)
	s.relations[relation.OID] = relation
	delete(s.composites, relation.OID)
	if composite != nil {
		composite.commit = s.tx.commit
		s.composites[relation.OID] = composite
	}
	if visible && described != nil && described == today && inForce(today, s.tx) && s.r.cfg.Catalog.Names(relation.Table()) {
		return s.history.remember(ctx, s.tx.commit, today)
	}
	return nil
}

// nameRoot gives a partition that is published under its own name the name that
// the catalog knows.
func (s *stream) nameRoot(relation *schemas.Relation, described *catalog.TableDescription) {
	if s.r.cfg.Catalog.Names(relation.Table()) {
		return
	}
	if root, partition := s.r.cfg.Catalog.Root(described); partition {
		relation.Namespace, relation.Name, relation.Partition = root.Namespace, root.Name, true
	}
}

// findKey finds a relation's primary key. Under DEFAULT the key flags are the
// primary key as it was at the time. Under FULL and INDEX they are not.
func (s *stream) findKey(relation *schemas.Relation, described *catalog.TableDescription) {
	if described != nil {
		relation.PrimaryKey, relation.KeyCut = described.PrimaryKeyOf(relation)
		relation.IdentityCut = relation.Identity == schemas.IdentityIndex && described.IdentityCutOf(relation)
	}
	if relation.Identity != schemas.IdentityDefault || relation.KeyCut || described != nil && described.IsChildOf(relation.Table()) {
		return
	}
	relation.PrimaryKey = nil
	for i, column := range relation.Columns {
		if column.Key {
			relation.PrimaryKey = append(relation.PrimaryKey, i)
		}
	}
}

// findUnknown notes what of a relation's time nobody knows, so that its rows
// cannot be read: whose table it was, its key, or a type of a field.
func (s *stream) findUnknown(relation *schemas.Relation, described *catalog.TableDescription) {
	catalog := s.r.cfg.Catalog
	schema := catalog.SchemaOf(relation.Table())
	name := s.r.names[relation.OID]
	switch named := catalog.Names(relation.Table()); {
	case named && !relation.Partition:
		s.r.names[relation.OID] = relation.Table()
	case !named && name != (schemas.TableName{}):
		relation.Unknown = fmt.Sprintf("whether it still is %s, which it was before it was renamed", name)
		if d := s.history.find(name); d == nil || d.OID == relation.OID {
			relation.Former = name
		}
		return
	}
	switch {
	case described == nil && !catalog.Names(relation.Table()):
		relation.Unknown = "which table it was a part of"
	case described == nil && relation.Identity != schemas.IdentityDefault && schema != nil && len(schema.Key) == 0:
		relation.Unknown = "its primary key"
	case schema != nil:
		for _, field := range schema.Fields {
			at := relation.Column(field.Column)
			if at >= 0 && relation.Columns[at].Type >= firstUserOID && relation.Types.Name(relation.Columns[at].Type) == "" {
				relation.Unknown = "the type of column " + field.Column
			}
		}
	}
}

// firstUserOID is the first that a database's own objects have
// (FirstNormalObjectId).
const firstUserOID = 16384

// refresh reads a relation's types again where ALTER TYPE has changed them,
// which one cheap query a transaction tells. Changes that are on their way keep
// the shape that they came with.
func (s *stream) refresh(ctx context.Context, relation *schemas.Relation, composite *compositeTypes) (*schemas.Relation, error) {
	var version string
	_, err := s.untilVisible(ctx, func() (visible bool, err error) {
		var seen source.Visibility
		version, seen, err = s.source.TypesVersion(ctx, composite.rows)
		return seen.Shows(s.tx.xid), err
	})
	if err != nil {
		return nil, err
	}
	composite.commit = s.tx.commit
	if version == composite.version && !composite.doubted {
		return relation, nil
	}
	now := *relation
	read, err := s.describeTypes(ctx, &now, s.history.types(relation.OID, s.tx))
	if err != nil {
		return nil, err
	}
	s.relations[now.OID] = &now
	delete(s.composites, now.OID)
	if read != nil {
		read.commit = s.tx.commit
		s.composites[now.OID] = read
	}
	return &now, nil
}

// describeTypes gives a relation the types of its columns, as they are now or,
// where they are gone, as kept has them. A composite type that was altered since
// is not known: its text does not say which value is whose. composite is what was learnt, if any of it
// is composite: ALTER TYPE can change that without a word in the stream.
func (s *stream) describeTypes(ctx context.Context, relation *schemas.Relation, kept keptTypes) (composite *compositeTypes, err error) {
	var unknown []uint32
	for _, column := range relation.Columns {
		if !s.builtin.Known(column.Type) {
			unknown = append(unknown, column.Type)
		}
	}
	relation.Types = s.builtin
	if len(unknown) == 0 {
		return nil, nil
	}
	learnt, altered, version, err := s.source.ReadTypes(ctx, unknown)
	if err != nil {
		return nil, fmt.Errorf("read the types of %s: %w", relation.Table(), err)
	}
	relation.Types = pgjson.NewTypes()
	for _, row := range kept.rows {
		relation.Types.Add(row.Type())
	}
	for _, row := range learnt {
		typ := row.Type()
		if len(altered[row.OID]) > 0 {
			if composite == nil {
				composite = &compositeTypes{rows: learnt, version: version}
			}
			if kept.doubts(row, altered[row.OID]) {
				typ.Kind, composite.doubted = pgjson.TypeUnknown, true
			}
		}
		relation.Types.Add(typ)
	}
	return composite, nil
}

// partitions are those of a table that is published under its own name. The
// changes are the root's, whichever partition they come from; but before the
// first one of a partition, and after each change of its shape, the server
// describes the partition too. So the identities that old rows may have been
// written under are known.
type partitions struct {
	identity map[uint32]map[string]bool // by partition: the columns that old rows keep; nil for all
	changed  bool                       // since key was made
	of       *schemas.Relation
	key      []bool // columns that a partition keeps which does not keep all; nil where all keep all
}

// leaf notes the replica identity of a partition for the tables above it.
func (s *stream) leaf(relation *schemas.Relation, described *catalog.TableDescription) {
	above := s.above(relation, described)
	s.described = relation.OID
	missing := s.missingDefaults(described)
	if len(missing) > 0 {
		s.missing[relation.OID] = missing
	} else {
		delete(s.missing, relation.OID)
	}
	for _, oid := range above {
		p := s.partitions[oid]
		if p == nil {
			p = &partitions{identity: map[uint32]map[string]bool{}}
			s.partitions[oid] = p
		}
		var keeps map[string]bool
		if relation.Identity != schemas.IdentityFull {
			keeps = map[string]bool{}
			for _, column := range relation.Columns {
				keeps[column.Name] = column.Key
			}
		}
		p.identity[relation.OID], p.changed = keeps, true
		for name, column := range missing {
			if s.missing[oid] == nil {
				s.missing[oid] = map[string]catalog.DescribedColumn{}
			}
			s.missing[oid][name] = column
		}
	}
}

// above are the tables that a relation is a partition of. Of one that nobody
// knows, it is the table that was described just before it.
func (s *stream) above(relation *schemas.Relation, described *catalog.TableDescription) (oids []uint32) {
	if described == nil {
		if s.described != 0 && !s.r.cfg.Catalog.Names(relation.Table()) {
			return []uint32{s.described}
		}
		return nil
	}
	if described.Inherits {
		return nil // its changes are its own, wherever they count
	}
	for _, ancestor := range described.Ancestors {
		oids = append(oids, ancestor.OID)
	}
	return oids
}

// keeps says which columns an old row of relation may be limited to; nil for
// none.
func (p *partitions) keeps(relation *schemas.Relation) []bool {
	if p.of == relation && !p.changed {
		return p.key
	}
	p.of, p.changed, p.key = relation, false, nil
	for _, columns := range p.identity {
		if columns == nil {
			continue
		}
		if p.key == nil {
			p.key = make([]bool, len(relation.Columns))
		}
		for i, column := range relation.Columns {
			p.key[i] = p.key[i] || columns[column.Name]
		}
	}
	return p.key
}

// judgeOld says what of an old row is believed. A partition's old row comes as
// its root's: where some partition keeps less than the whole row, one that
// holds nothing else is taken for that partition's, and what it lacks is not
// known. A server that leaves out the values of columns that are younger than
// the row sends nulls in their place.
func (s *stream) downgradeMixedIdentity(change *schemas.Change) {
	oid := change.Relation.OID
	if p := s.partitions[oid]; p != nil {
		key := p.keeps(change.Relation)
		if change.OldIsKey = key != nil && holdsNoMore(change.Old, key); change.OldIsKey {
			for i := range change.Old {
				if !key[i] {
					change.Old[i] = schemas.Value{}
				}
			}
		}
	}
	if change.OldIsKey {
		return
	}
	for name, column := range s.missing[oid] {
		if i := change.Relation.Column(name); i >= 0 && change.Old[i].State == schemas.Null {
			change.Old[i] = schemas.Value{}
			if column.NotNull && column.Missing != nil {
				change.Old[i] = schemas.Value{State: schemas.Text, Text: []byte(*column.Missing)}
			}
		}
	}
}

// holdsNoMore says whether all that a row holds is in the columns of key.
func holdsNoMore(row schemas.Tuple, key []bool) bool {
	for i := range row {
		if !key[i] && row[i].State != schemas.Null {
			return false
		}
	}
	return true
}

// missingDefaults are the columns of a table for which this server may send
// null in an old row that is older than the column; none where it does not.
func (s *stream) missingDefaults(described *catalog.TableDescription) map[string]catalog.DescribedColumn {
	if described == nil || !s.dropsDefaults {
		return nil
	}
	var missing map[string]catalog.DescribedColumn
	for _, column := range described.Columns {
		if column.Missing != nil {
			if missing == nil {
				missing = map[string]catalog.DescribedColumn{}
			}
			missing[column.Name] = column
		}
	}
	return missing
}

// A server streams a transaction once its commit record is written, and shows it
// to others a moment later: in between it waits for synchronous standbys. Who
// asks the catalog in that moment sees the tables as they were before the
// transaction. So the reader waits until the catalog shows it; where a standby
// keeps that for long, it goes on.
const (
	visibleWait  = 2 * time.Second
	visibleEvery = time.Millisecond
)

// untilVisible asks the catalog until it shows the transaction that is being
// read. It is false where that takes too long, which costs a transaction one
// wait.
func (s *stream) untilVisible(ctx context.Context, ask func() (visible bool, err error)) (bool, error) {
	for began := time.Now(); ; {
		if visible, err := ask(); visible || err != nil {
			return visible, err
		}
		if s.invisible == s.tx.commit || time.Since(began) >= visibleWait || retry.Pause(ctx, visibleEvery) != nil {
			s.invisible = s.tx.commit
			return false, ctx.Err()
		}
	}
}
