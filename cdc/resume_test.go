package cdc

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"walhook/cdc/source"
	"walhook/schemas"
)

var errStoreAway = errors.New("the store is away")

// wantIDs fails unless the inserts stored are those of ids 1 to n, in order.
func (w *world) wantIDs(t *testing.T, n int) {
	t.Helper()
	next := 1
	for _, change := range w.store.stored() {
		if change.Kind != schemas.Insert {
			continue
		}
		if got := string(change.New[0].Text); got != fmt.Sprint(next) {
			t.Fatalf("id %s at %s, want %d", got, change.Position, next)
		}
		next++
	}
	if next != n+1 {
		t.Errorf("%d rows were stored, want %d", next-1, n)
	}
}

// A transaction larger than a batch is stored in chunks. Wherever the reader stops, it
// stores no change twice and leaves out none.
func TestReader_ResumesInsideATransaction(t *testing.T) {
	t.Parallel()
	const rows = 25_000 // more than a batch holds
	for _, test := range []struct {
		name      string
		afterward bool // the append fails when it is stored
		restart   bool // the process ends with it
	}{
		{name: "an append fails"},
		{name: "an append fails though it was stored", afterward: true},
		{name: "the process ends", restart: true},
		{name: "the process ends with its append stored", afterward: true, restart: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			appends, inside, ended := 0, 0, false
			fail := func(context.Context, schemas.Batch) error {
				position := look(w.store, func() schemas.Position { return w.store.checkpoint.Position })
				if position.Ordinal > 0 && position.Ordinal < rows {
					inside++
				}
				if appends++; appends%2 == 1 || appends > 10 {
					return nil
				}
				if test.restart {
					w.store.mu.Lock()
					ended = true
					w.store.tell()
					w.store.mu.Unlock()
				}
				return errStoreAway
			}
			if test.afterward {
				w.store.hook(nil, fail)
			} else {
				w.store.hook(fail, nil)
			}
			w.exec(t, fmt.Sprintf("INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, %d) n", rows))
			for all := false; !all; {
				ended = false
				r := w.start(t)
				w.store.wait(t, "rows", func() bool {
					all = len(w.store.changes) >= rows
					return all || ended
				})
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
			}
			w.store.hook(nil, nil)
			w.start(t)
			w.settle(t)
			w.wantIDs(t, rows)
			if inside < 2 {
				t.Errorf("%d appends began inside the transaction, want several", inside)
			}
		})
	}
}

func TestReader_StartsAgainWithNothingToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	for i := 1; i <= 3; i++ {
		r := w.start(t)
		w.exec(t, fmt.Sprintf("INSERT INTO items VALUES (%d, 7, 'x')", i))
		w.settle(t)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		w.start(t).stop() // and once for nothing
	}
	w.wantIDs(t, 3)
	if gaps := w.store.gaps; len(gaps) > 0 {
		t.Errorf("an ordinary restart was taken for a gap: %v", gaps)
	}
}

// The WAL at the stored position must hold the transaction that was stored from there.
func TestReader_TheTransactionThatItResumesInIsTheSameOne(t *testing.T) {
	t.Parallel()
	insert := rowMessage('I', tableOID, tuple('N', text("1"), null))
	inside := schemas.Checkpoint{Position: schemas.Position{Commit: 0x200, Ordinal: 2}, Xid: 7, Flush: 0x150}
	const confirmed = 0x150
	for _, test := range []struct {
		name       string
		checkpoint schemas.Checkpoint
		confirmed  schemas.LSN
		data       [][]byte
		gap        bool
		stored     int
	}{
		{name: "it is", checkpoint: inside, confirmed: confirmed, stored: 1, data: [][]byte{
			walData(1, beginMessage(0x200, 7)), walData(1, insert), walData(1, insert), walData(1, insert), walData(1, commitMessage(0x200, 0x230))}},
		{name: "with one before it that is stored", checkpoint: inside, confirmed: 0x100, stored: 0, data: [][]byte{
			walData(1, beginMessage(0x110, 6)), walData(1, insert), walData(1, commitMessage(0x110, 0x140)),
			walData(1, beginMessage(0x200, 7)), walData(1, insert), walData(1, insert), walData(1, commitMessage(0x200, 0x230))}},
		{name: "another transaction stands there", checkpoint: inside, confirmed: confirmed, gap: true, data: [][]byte{
			walData(1, beginMessage(0x200, 8))}},
		{name: "nothing stands there", checkpoint: inside, confirmed: confirmed, gap: true, data: [][]byte{
			walData(1, beginMessage(0x220, 7))}},
		{name: "nothing stands there and nothing follows", checkpoint: inside, confirmed: confirmed, gap: true, data: [][]byte{
			keepaliveData(0x220, 0)}},
		{name: "the server is not there yet", checkpoint: inside, confirmed: confirmed, data: [][]byte{
			keepaliveData(0x180, 0)}},
		{name: "it is shorter", checkpoint: inside, confirmed: confirmed, gap: true, data: [][]byte{
			walData(1, beginMessage(0x200, 7)), walData(1, insert), walData(1, commitMessage(0x200, 0x230))}},
		{name: "it was confirmed and does not come again", confirmed: 0x230, stored: 1, data: [][]byte{
			walData(1, beginMessage(0x300, 9)), walData(1, insert), walData(1, commitMessage(0x300, 0x330))},
			checkpoint: schemas.Checkpoint{Position: inside.Position, Xid: 7, Flush: 0x230}},
		{name: "the position is a snapshot's", confirmed: 0x200, stored: 1, data: [][]byte{
			walData(1, beginMessage(0x200, 9)), walData(1, insert), walData(1, commitMessage(0x200, 0x230))},
			checkpoint: schemas.Checkpoint{Position: schemas.Position{Commit: 0x200}, Flush: 0x200}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := detached(test.checkpoint, test.confirmed)
			s.relations[tableOID] = testRelation(t, 'd')
			var err error
			for _, data := range test.data {
				if err = s.copyData(t.Context(), data); err != nil {
					break
				}
			}
			_, gap := errors.AsType[*source.GapError](err)
			if gap != test.gap || err != nil && !gap {
				t.Fatalf("error %v, want a gap: %t", err, test.gap)
			}
			if got := len(s.pending.batch.Changes); got != test.stored {
				t.Errorf("%d changes were handed on, want %d", got, test.stored)
			}
		})
	}
}

// A position stands for a whole message: one that truncates several tables is
// stored whole or not at all.
func TestReader_AMessageIsNeverSplitBetweenChunks(t *testing.T) {
	t.Parallel()
	s := detached(schemas.Checkpoint{}, 0)
	s.relations[tableOID] = testRelation(t, 'd')
	messages := [][]byte{beginMessage(0x100, 5)}
	for range chunkChanges - 1 {
		messages = append(messages, rowMessage('I', tableOID, tuple('N', text("1"), null)))
	}
	batch, err := decode(t, s, append(messages, truncateMessage(tableOID, tableOID, tableOID))...)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(batch.Changes), chunkChanges+2; got != want || batch.Position.Ordinal != chunkChanges {
		t.Errorf("%d changes up to %s were handed on, want %d up to ordinal %d", got, batch.Position, want, chunkChanges)
	}
}

// PostgreSQL 14 sends transactions without published changes too, such as those of an
// outbox in the same database: if each were stored, every append would cause the next.
func TestReader_AnEmptyTransactionIsNoReasonToAppend(t *testing.T) {
	t.Parallel()
	s := detached(schemas.Checkpoint{}, 0)
	s.relations[tableOID] = testRelation(t, 'd')
	end := schemas.LSN(0x100)
	empty := func() {
		if _, err := decode(t, s, beginMessage(end, 5), commitMessage(end, end+0x30)); err != nil {
			t.Fatal(err)
		}
		end += 0x30
	}
	empty() // the first may advance the slot
	if _, err := s.pending.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		empty()
	}
	if s.pending.waiting() {
		t.Error("empty transactions are appended one by one")
	}
	batch, err := decode(t, s, beginMessage(end, 6), rowMessage('I', tableOID, tuple('N', text("1"), null)), commitMessage(end, end+0x30))
	if err != nil || len(batch.Changes) != 1 || batch.Flush != end+0x30 {
		t.Errorf("handed on %d changes with flush %s, err %v", len(batch.Changes), batch.Flush, err)
	}
}
