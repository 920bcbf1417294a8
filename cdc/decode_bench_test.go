package cdc

import (
	"fmt"
	"testing"

	"walhook/schemas"
)

// BenchmarkDecode_SingleRowTransactions is a backlog as applications make it: a
// transaction of three messages to each row.
func BenchmarkDecode_SingleRowTransactions(b *testing.B) {
	const transactions = 1000
	relation := testRelation(b, 'f')
	messages := make([][]byte, 0, 3*transactions)
	for i := range transactions {
		commit := schemas.LSN(0x1000 * (i + 1))
		id := fmt.Sprint(100_000 + i)
		for _, m := range [][]byte{
			beginMessage(commit, 700), rowMessage('I', relation.OID, tuple('N', text(id), text("a name of middling length"))), commitMessage(commit, commit+0x30),
		} {
			messages = append(messages, walData(commit, m))
		}
	}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		s := detached(schemas.Checkpoint{}, 0)
		s.relations[relation.OID] = relation
		for i, m := range messages {
			if i%3000 == 2999 { // as the appender takes it
				s.pending.batch.Changes = nil
			}
			if err := s.copyData(ctx, m); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*transactions), "ns/transaction")
}
