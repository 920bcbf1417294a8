package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/internal/pgsession"
	"walhook/schemas"
)

// change handles one message of pgoutput.
func (s *stream) change(ctx context.Context, c *cursor) error {
	kind := c.byte()
	if !s.inTx {
		switch kind {
		case msgBegin, msgLogical, msgRelation, msgType, msgOrigin:
		default:
			return fmt.Errorf("message %q outside a transaction", kind)
		}
	}
	switch kind {
	case msgCommit, msgTruncate, msgLogical:
		if err := s.release(ctx); err != nil {
			return err
		}
	}
	switch kind {
	case msgBegin:
		return s.begin(c)
	case msgCommit:
		return s.commit(ctx, c)
	case msgRelation:
		return s.relation(ctx, c)
	case msgInsert:
		return s.row(ctx, c, schemas.Insert)
	case msgUpdate:
		return s.row(ctx, c, schemas.Update)
	case msgDelete:
		return s.row(ctx, c, schemas.Delete)
	case msgTruncate:
		return s.truncate(ctx, c)
	case msgLogical:
		return s.logical(ctx, c)
	case msgOrigin, msgType:
		return nil // the origin is not used; types are read by OID
	}
	return fmt.Errorf("unknown message kind %q", kind)
}

func (s *stream) begin(c *cursor) error {
	tx, err := decodeBegin(c)
	if err != nil {
		return err
	}
	if s.inTx {
		return errors.New("a transaction begins inside another")
	}
	if s.gate.reaches(tx.commit) { // the next session reads it, by another catalog
		return nil
	}
	s.inTx, s.tx, s.ordinal = true, tx, 0
	s.skip, s.skipUpto = false, 0
	switch done := s.resume.Position; {
	case tx.commit < done.Commit:
		s.skip = true
	case tx.commit > done.Commit && s.expect:
		return s.otherLog("it is not there")
	case tx.commit == done.Commit:
		if s.resume.Xid != 0 && s.resume.Xid != tx.xid {
			return s.otherLog(fmt.Sprintf("transaction %d is there, not %d", tx.xid, s.resume.Xid))
		}
		s.expect, s.skipUpto = false, done.Ordinal
	}
	return nil
}

// otherLog is the gap of a WAL that does not hold the transaction that the stored
// position is in.
func (s *stream) otherLog(why string) error {
	return &source.GapError{From: s.resume.Flush, To: s.tx.commit, Slot: s.r.cfg.Slot, OtherHistory: true, Reason: fmt.Sprintf(
		source.GapOtherWAL, s.resume.Position, why)}
}

func (s *stream) commit(ctx context.Context, c *cursor) error {
	m, err := decodeCommit(c)
	if err != nil {
		return err
	}
	if m.lsn != s.tx.commit {
		return fmt.Errorf("commit at %s ends a transaction that began with %s", m.lsn, s.tx.commit)
	}
	s.inTx = false
	switch {
	case s.skip:
		return nil
	case s.ordinal < s.skipUpto:
		return s.otherLog(fmt.Sprintf("only %d changes are there", s.ordinal))
	case s.ordinal == 0:
		// PostgreSQL 14 sends transactions without published changes too, such as
		// those of an outbox in the same database: storing the position of each would
		// make the next one.
		s.r.metrics.lag.reads(m.end)
		s.advance(m.end, s.r.idleEvery)
		return nil
	}
	s.flush = max(s.flush, m.end)
	return s.handOn(ctx)
}

// next counts a change message. It is false if the change is stored already.
func (s *stream) next() bool {
	s.ordinal++
	if s.skip || s.ordinal <= s.skipUpto {
		return false
	}
	s.position = schemas.Position{Commit: s.tx.commit, Ordinal: s.ordinal}
	s.xid, s.committedAt = s.tx.xid, s.tx.committedAt
	return true
}

func (s *stream) row(ctx context.Context, c *cursor, kind schemas.Kind) error {
	if !s.next() {
		return nil
	}
	oid := c.uint32()
	relation := s.relations[oid]
	if relation == nil {
		return fmt.Errorf("%s of relation %d, which was not described", kind, oid)
	}
	if composite := s.composites[oid]; composite != nil && composite.commit != s.tx.commit {
		var err error
		if relation, err = s.refresh(ctx, relation, composite); err != nil {
			return err
		}
	}
	s.described = 0
	change, err := decodeRow(c, &s.arena, kind, relation, s.partitions[oid] != nil)
	if err != nil {
		return fmt.Errorf("%s of table %s: %w", kind, relation.Table(), err)
	}
	if s.encoding == source.SQLASCII {
		s.makeLegible(change.Old, relation)
		s.makeLegible(change.New, relation)
	}
	change.Oversize = s.size
	if change.Old != nil {
		s.downgradeMixedIdentity(&change)
		if !c.dropped { // a dropped value did change
			fillUnchanged(change.New, change.Old)
		}
	}
	if !s.moved(&change) {
		if err := s.release(ctx); err != nil {
			return err
		}
	}
	if kind == schemas.Delete && s.mayMove(relation) {
		s.hold(change)
		return nil
	}
	return s.keep(ctx, change)
}

func (s *stream) truncate(ctx context.Context, c *cursor) error {
	oids, err := decodeTruncate(c)
	if err != nil {
		return err
	}
	if !s.next() {
		return nil
	}
	s.described = 0
	changes := make([]schemas.Change, len(oids))
	for i, oid := range oids {
		relation := s.relations[oid]
		if relation == nil {
			return fmt.Errorf("truncate of relation %d, which was not described", oid)
		}
		changes[i] = schemas.Change{Kind: schemas.Truncate, Relation: relation}
	}
	return s.keep(ctx, changes...)
}

// logical handles a logical message. A message with another application's prefix counts
// and is not kept. A message that is not transactional has no place in the order of
// commits: it gets no ordinal, and routing refuses it.
func (s *stream) logical(ctx context.Context, c *cursor) error {
	change, err := decodeLogical(c, &s.arena, s.r.cfg.Messages, s.size > 0)
	if err != nil {
		return fmt.Errorf("logical message: %w", err)
	}
	change.Oversize = s.size
	ours := s.r.cfg.Messages.Take(change.Prefix)
	if ours {
		var none schemas.Relation
		s.r.cfg.Catalog.Refer(&none, s.history.find)
		change.AccountIDs = none.AccountIDs
	}
	switch {
	case change.Transactional && !s.inTx:
		return errors.New("transactional logical message outside a transaction")
	case change.Transactional:
		if !s.next() || !ours {
			return nil
		}
		if change.Content, err = s.convertContent(ctx, change.Content); err != nil {
			return err
		}
		return s.keep(ctx, change)
	case !ours:
		return nil
	}
	change.Content = nil
	if err := s.keep(ctx, change); err != nil || s.inTx {
		return err
	}
	return s.handOn(ctx)
}

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

// hold keeps a delete until the next message shows whether its row moved.
func (s *stream) hold(change schemas.Change) {
	change.Position = s.position
	s.held = &change
}

// release keeps a held delete in the chunk, with its own position.
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

// moved reports whether an insert is of the account whose delete is held, and makes one
// update of the two.
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
	for i, column := range change.Relation.Columns { // partitions may have columns in another order
		if at := s.held.Relation.Column(column.Name); at >= 0 {
			old[i] = s.held.Old[at]
		}
	}
	change.Kind, change.Old, change.OldIsKey = schemas.Update, old, s.held.OldIsKey
	change.Oversize = max(change.Oversize, s.held.Oversize)
	s.held = nil
	return true
}

// makeLegible makes UTF-8 of the values of a row.
func (s *stream) makeLegible(row schemas.Tuple, relation *schemas.Relation) {
	for i := range row {
		valid := utf8.Valid(row[i].Text)
		row[i].Text = source.Legible(row[i].Text)
		if valid {
			continue
		}
		if name := relation.Table().String() + "." + relation.Columns[i].Name; !s.illegible[name] {
			s.illegible[name] = true
			s.r.log.Warn("value is not UTF-8, replacing its bytes by U+FFFD and their hexadecimal digits",
				zap.String("column", name), zap.Stringer("position", s.position))
		}
	}
}

// convertContent makes UTF-8 of a logical message's content, which the server sends in
// its own encoding, whatever the session's is.
func (s *stream) convertContent(ctx context.Context, content []byte) ([]byte, error) {
	if isASCII(content) || s.encoding == "UTF8" || s.encoding == "" {
		return content, nil
	}
	if s.encoding == source.SQLASCII || s.convert == nil {
		return source.Legible(content), nil
	}
	text, err := s.convert(ctx, content)
	if pgsession.State(err) != "" && !source.IsUnreachable(err) {
		return source.Legible(content), nil // not valid in the server's encoding
	}
	if err != nil {
		return nil, fmt.Errorf("convert a logical message: %w", err)
	}
	return []byte(text), nil
}

func isASCII(text []byte) bool {
	for _, b := range text {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
