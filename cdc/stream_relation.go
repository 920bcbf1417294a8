package cdc

import (
	"context"
	"fmt"
	"reflect"

	"walhook/schemas"
)

// fluidTypes are composite types that a relation's columns are made of.
type fluidTypes struct {
	rows   []schemas.TypeRow
	commit schemas.LSN // of the transaction in which they were read
}

func (s *stream) relation(ctx context.Context, c *cursor) error {
	relation, err := decodeRelation(c)
	if err != nil {
		return fmt.Errorf("relation: %w", err)
	}
	before := s.relations[relation.OID]
	if !s.r.cfg.Catalog.Names(relation.Table()) {
		if err := s.source.nameRoot(ctx, relation, before); err != nil {
			return err
		}
	}
	rows, err := s.source.describe(ctx, relation, before)
	if err != nil {
		return err
	}
	s.relations[relation.OID] = relation
	delete(s.fluid, relation.OID)
	if rows != nil {
		s.fluid[relation.OID] = &fluidTypes{rows: rows, commit: s.tx.commit}
	}
	return nil
}

// refresh reads a relation's types again, once a transaction. Changes that are
// on their way keep the shape that they came with.
func (s *stream) refresh(ctx context.Context, relation *schemas.Relation, fluid *fluidTypes) (*schemas.Relation, error) {
	now := *relation
	rows, err := s.source.describeTypes(ctx, &now)
	if err != nil {
		return nil, err
	}
	fluid.commit = s.tx.commit
	if reflect.DeepEqual(rows, fluid.rows) {
		return relation, nil
	}
	fluid.rows = rows
	s.relations[now.OID] = &now
	return &now, nil
}
