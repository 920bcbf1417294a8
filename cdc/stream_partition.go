package cdc

import (
	"walhook/schemas"
	"walhook/schemas/catalog"
)

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
func (s *stream) judgeOld(change *schemas.Change) {
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
