package cdc

import (
	"context"
	"fmt"
	"slices"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// fluidTypes are composite types that a relation's columns are made of.
type fluidTypes struct {
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
	visible, err := s.untilVisible(ctx, func() (bool, error) { return s.source.shows(ctx, s.tx.xid) })
	if err != nil {
		return err
	}
	today, err := s.source.describe(ctx, relation.OID)
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
	fluid, err := s.source.describeTypes(ctx, relation, s.history.types(relation.OID, s.tx))
	if err != nil {
		return err
	}
	s.findUnknown(relation, described)
	s.relations[relation.OID] = relation
	delete(s.fluid, relation.OID)
	if fluid != nil {
		fluid.commit = s.tx.commit
		s.fluid[relation.OID] = fluid
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
func (s *stream) refresh(ctx context.Context, relation *schemas.Relation, fluid *fluidTypes) (*schemas.Relation, error) {
	var version string
	_, err := s.untilVisible(ctx, func() (visible bool, err error) {
		var seen snapshot
		version, seen, err = s.source.typesVersion(ctx, fluid.rows)
		return seen.shows(s.tx.xid), err
	})
	if err != nil {
		return nil, err
	}
	fluid.commit = s.tx.commit
	if version == fluid.version && !fluid.doubted {
		return relation, nil
	}
	now := *relation
	read, err := s.source.describeTypes(ctx, &now, s.history.types(relation.OID, s.tx))
	if err != nil {
		return nil, err
	}
	s.relations[now.OID] = &now
	delete(s.fluid, now.OID)
	if read != nil {
		read.commit = s.tx.commit
		s.fluid[now.OID] = read
	}
	return &now, nil
}
