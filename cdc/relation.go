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

// compositeTypes are the composite types that a relation's columns use.
type compositeTypes struct {
	rows    []pgjson.TypeRow
	version string      // changes with ALTER TYPE
	doubted bool        // one of them may have been another at the time
	commit  schemas.LSN // of the transaction that last compared the version
}

// relation completes a RELATION message with what the stream does not say: primary key,
// types, and the table that the relation is a partition of. It takes them from the
// description that was in force at the time: today's catalog's, or a kept one.
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

// findUnknown sets Relation.Unknown if rows of the relation cannot be read, because its
// table, its key or the type of a field at the time is unknown.
func (s *stream) findUnknown(relation *schemas.Relation, described *catalog.TableDescription) {
	catalog := s.r.cfg.Catalog
	schema := catalog.SchemaOf(relation.Table())
	name := s.r.names[relation.OID]
	switch named := catalog.Names(relation.Table()); {
	case named && !relation.Partition:
		s.r.names[relation.OID] = relation.Table()
	case !named && name != (schemas.TableName{}) && !catalog.Names(name):
		delete(s.r.names, relation.OID) // a changed catalog has dropped it
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

// firstUserOID is the first OID of a database's own objects (FirstNormalObjectId).
const firstUserOID = 16384

// refresh reads a relation's types again if ALTER TYPE has changed them, which it checks
// by one cheap query for each transaction. Earlier changes keep their relation.
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

// describeTypes sets the types of a relation's columns: the current ones or, if they are
// gone, those that kept has. A composite type that was altered since is unknown: its
// text does not say which value belongs to which attribute. composite are the types
// that were read, if any is composite: the stream does not show ALTER TYPE.
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

// partitions are those of a table that is published under its own name. The server sends
// their changes as the root's. But before the first change of a partition, and after
// each change of its shape, it sends a RELATION message of the partition too. So the
// reader knows the replica identities of old rows.
type partitions struct {
	identity map[uint32]map[string]bool // by partition: the columns of old rows; nil for all
	changed  bool                       // since key was made
	of       *schemas.Relation
	key      []bool // columns in old rows of partitions that do not keep all; nil for none
}

// leaf notes the replica identity of a partition for its ancestors.
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

// above returns the tables that a relation is a partition of. For an unknown relation
// that is the one of the RELATION message just before.
func (s *stream) above(relation *schemas.Relation, described *catalog.TableDescription) (oids []uint32) {
	if described == nil {
		if s.described != 0 && !s.r.cfg.Catalog.Names(relation.Table()) {
			return []uint32{s.described}
		}
		return nil
	}
	if described.Inherits {
		return nil // the server sends its changes as its own
	}
	for _, ancestor := range described.Ancestors {
		oids = append(oids, ancestor.OID)
	}
	return oids
}

// keeps returns the columns that an old row of relation may be limited to; nil for all.
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

// downgradeMixedIdentity makes values of an old row absent that may not be what the row
// had. The server sends a partition's old row as its root's. If some partition keeps
// less than the whole row, a row without other values counts as that partition's. And
// some servers send null for columns that are younger than the row.
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

// holdsNoMore reports whether a row has values in the columns of key only.
func holdsNoMore(row schemas.Tuple, key []bool) bool {
	for i := range row {
		if !key[i] && row[i].State != schemas.Null {
			return false
		}
	}
	return true
}

// missingDefaults returns the columns for which this server may send null in an old row
// that is older than the column.
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

// A server streams a transaction once its commit record is written, and shows it to
// other sessions only after its synchronous standbys have confirmed. Between the two,
// the catalog shows the tables as they were before the transaction. So the reader waits
// until the catalog shows it, for at most visibleWait.
const (
	visibleWait  = 2 * time.Second
	visibleEvery = time.Millisecond
)

// untilVisible asks the catalog until it shows the current transaction. It is false when
// that takes too long, which it waits for once in a transaction.
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
