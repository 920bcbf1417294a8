package cdc

import (
	"bytes"
	"context"

	"walhook/schemas"
)

// A row of a partitioned table that moves to another partition is sent as a
// DELETE and an INSERT, one right behind the other. Of the account table that is
// no end of an account: both are put together as the UPDATE that they are. What
// comes between, such as what a trigger writes to a published table, leaves them
// apart.

// mayMove says whether rows of a relation may move to another partition, and
// name accounts.
func (s *stream) mayMove(relation *schemas.Relation) bool {
	return relation.Table() == s.r.cfg.Catalog.Account.Table && (relation.Partition || s.partitions[relation.OID] != nil)
}

// hold keeps a delete back until the next message says whether its row moved.
func (s *stream) hold(change schemas.Change) {
	change.Position = s.position
	s.held = &change
}

// release hands on a delete that was held, under its own position.
func (s *stream) release(ctx context.Context) error {
	if s.held == nil {
		return nil
	}
	held, now := *s.held, s.position
	s.held, s.position = nil, s.held.Position
	err := s.keep(ctx, held)
	s.position = now
	return err
}

// moved says whether an insert is of the account whose delete is held, and puts
// the two together.
func (s *stream) moved(change *schemas.Change) bool {
	if s.held == nil || change.Kind != schemas.Insert || change.Relation.Table() != s.held.Relation.Table() {
		return false
	}
	id := s.r.cfg.Catalog.Account.ID
	from, to := s.held.Relation.Column(id), change.Relation.Column(id)
	if from < 0 || to < 0 || s.held.Old[from].State != schemas.Text || !bytes.Equal(s.held.Old[from].Text, change.New[to].Text) {
		return false
	}
	old := make(schemas.Tuple, len(change.Relation.Columns))
	for i, column := range change.Relation.Columns { // partitions may order their columns as they like
		if at := s.held.Relation.Column(column.Name); at >= 0 {
			old[i] = s.held.Old[at]
		}
	}
	change.Kind, change.Old, change.OldIsKey = schemas.Update, old, s.held.OldIsKey
	change.Oversize = max(change.Oversize, s.held.Oversize)
	s.held = nil
	return true
}
