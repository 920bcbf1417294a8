package cdc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// detached is a stream without a connection, which decodes the messages of a test.
func detached(c schemas.Checkpoint, confirmed schemas.LSN) *stream {
	catalog := &catalog.Catalog{Account: catalog.AccountTable{Table: schemas.TableName{Namespace: "public", Name: "t"}}}
	r := &Reader{store: &recorder{}, names: map[uint32]schemas.TableName{}, cfg: source.Config{Slot: "walhook", Publication: "walhook", Catalog: catalog}, log: zap.NewNop(), idleEvery: time.Hour}
	r.metrics = newMetrics(prometheus.NewRegistry(), r.State)
	return newStream(r, nil, noTables{}, false, &history{}, c, confirmed)
}

// noTables is a system catalog without tables.
type noTables struct{ catalogNow }

func (noTables) Describe(context.Context, uint32) (*catalog.TableDescription, error) {
	return nil, nil
}

func (noTables) Shows(context.Context, uint32) (bool, error) { return true, nil }

// decode feeds messages to a stream and returns what waits to be stored.
func decode(t *testing.T, s *stream, messages ...[]byte) (schemas.Batch, error) {
	t.Helper()
	for _, message := range messages {
		if err := s.copyData(t.Context(), walData(0x16B3748, message)); err != nil {
			return schemas.Batch{}, err
		}
	}
	s.pending.mu.Lock()
	defer s.pending.mu.Unlock()
	return s.pending.batch, nil
}

const tableOID = 16385

func TestDecode_EveryKindOfMessage(t *testing.T) {
	for _, test := range []struct {
		name     string
		identity byte
		message  []byte
		want     string // "" for nothing that is kept
	}{
		{"insert", 'd', rowMessage('I', tableOID, tuple('N', text("1"), null)), "insert public.t new(id*=1 name=null)"},
		{"insert of an empty text", 'd', rowMessage('I', tableOID, tuple('N', text("1"), text(""))), "insert public.t new(id*=1 name=)"},
		{"update without an old row", 'd', rowMessage('U', tableOID, tuple('N', text("1"), text("b"))), "update public.t new(id*=1 name=b)"},
		{"update of the key", 'd', rowMessage('U', tableOID, tuple('K', text("1"), null), tuple('N', text("2"), text("b"))),
			"update public.t key(id*=1 name=?) new(id*=2 name=b)"},
		{"update under FULL", 'f', rowMessage('U', tableOID, tuple('O', text("1"), null), tuple('N', text("1"), text("b"))),
			"update public.t old(id=1 name=null) new(id=1 name=b)"},
		{"unchanged value under FULL", 'f', rowMessage('U', tableOID, tuple('O', text("1"), text("a")), tuple('N', text("1"), unchanged)),
			"update public.t old(id=1 name=a) new(id=1 name=a)"},
		{"unchanged null under FULL", 'f', rowMessage('U', tableOID, tuple('O', text("1"), null), tuple('N', text("1"), unchanged)),
			"update public.t old(id=1 name=null) new(id=1 name=null)"},
		{"unchanged value under DEFAULT", 'd', rowMessage('U', tableOID, tuple('N', text("1"), unchanged)), "update public.t new(id*=1 name=?)"},
		{"unchanged value beside a key", 'd', rowMessage('U', tableOID, tuple('K', text("1"), null), tuple('N', text("2"), unchanged)),
			"update public.t key(id*=1 name=?) new(id*=2 name=?)"},
		{"unchanged key", 'd', rowMessage('U', tableOID, tuple('K', text("1"), null), tuple('N', unchanged, text("b"))),
			"update public.t key(id*=1 name=?) new(id*=1 name=b)"},
		{"delete by key", 'd', rowMessage('D', tableOID, tuple('K', text("1"), null)), "delete public.t key(id*=1 name=?)"},
		{"delete under FULL", 'f', rowMessage('D', tableOID, tuple('O', text("1"), null)), "delete public.t old(id=1 name=null)"},
		{"truncate", 'd', truncateMessage(tableOID), "truncate public.t"},
		{"logical message", 'd', logicalMessage(true, "walhook", "{}"), `message walhook "{}"`},
		{"logical message of another prefix", 'd', logicalMessage(true, "other", "{}"), ""},
		{"type", 'd', typeMessage(), ""},
		{"origin", 'd', originMessage(), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := detached(schemas.Checkpoint{}, 0)
			s.relations[tableOID] = testRelation(t, test.identity)
			batch, err := decode(t, s, beginMessage(0x100, 5), test.message, commitMessage(0x100, 0x130))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, change := range batch.Changes {
				got.WriteString(line(change))
				if want := (schemas.Position{Commit: 0x100, Ordinal: 1}); change.Position != want {
					t.Errorf("position %s, want %s", change.Position, want)
				}
				if want := source.Epoch.Add(time.Second); !change.CommittedAt.Equal(want) {
					t.Errorf("committed at %s, want %s", change.CommittedAt, want)
				}
			}
			if got.String() != test.want {
				t.Errorf("got %s, want %s", got.String(), test.want)
			}
		})
	}
}

// testRelation is relationMessage decoded, with its key under DEFAULT; under FULL the key
// is unknown.
func testRelation(t testing.TB, identity byte) *schemas.Relation {
	relation, err := decodeRelation(&cursor{buf: relationMessage(tableOID, identity)[1:]})
	if err != nil {
		t.Fatal(err)
	}
	if identity == 'd' {
		relation.PrimaryKey = []int{0}
	}
	relation.Types = pgjson.NewTypes()
	return relation
}

// everyMessage is one of each kind, all well formed, as copy data.
func everyMessage() map[string][]byte {
	messages := map[string][]byte{"keepalive": keepaliveData(0x200, 1)}
	for name, message := range map[string][]byte{
		"begin":     beginMessage(0x100, 5),
		"commit":    commitMessage(0x100, 0x130),
		"relation":  relationMessage(tableOID, 'd'),
		"insert":    rowMessage('I', tableOID, tuple('N', text("1"), text("a"))),
		"update":    rowMessage('U', tableOID, tuple('K', text("1"), null), tuple('N', text("2"), unchanged)),
		"delete":    rowMessage('D', tableOID, tuple('K', text("1"), null)),
		"truncate":  truncateMessage(tableOID, tableOID),
		"logical":   logicalMessage(true, "walhook", "{}"),
		"not in tx": logicalMessage(false, "walhook", "{}"),
	} {
		messages[name] = walData(0x16B3748, message)
	}
	return messages
}

func TestDecode_ATruncatedMessageIsAnErrorAtEveryByte(t *testing.T) {
	for name, whole := range everyMessage() {
		t.Run(name, func(t *testing.T) {
			for n := range len(whole) {
				if err := feed(t, name, whole[:n]); err == nil {
					t.Errorf("%d of %d bytes were taken for a message", n, len(whole))
				} else if n > 9 && whole[0] == 'w' && !strings.Contains(err.Error(), "0/16B3748") {
					t.Errorf("%d of %d bytes: %v, want the position", n, len(whole), err)
				}
			}
			if err := feed(t, name, whole); err != nil {
				t.Errorf("whole message: %v", err)
			}
			if err := feed(t, name, append(slices.Clone(whole), 0)); err == nil {
				t.Error("a message with a byte too many was taken")
			}
		})
	}
}

// feed gives data to a stream that is inside a transaction, unless data begins one or
// belongs outside.
func feed(t *testing.T, name string, data []byte) error {
	s := detached(schemas.Checkpoint{}, 0)
	s.relations[tableOID] = testRelation(t, 'd')
	if name != "begin" && name != "keepalive" {
		s.inTx, s.tx = true, begin{commit: 0x100, xid: 5}
	}
	return s.copyData(t.Context(), data)
}

func TestDecode_AMalformedMessageIsAnError(t *testing.T) {
	begun := beginMessage(0x100, 5)
	for _, test := range []struct {
		name     string
		messages [][]byte
		want     string
	}{
		{"a row outside a transaction", [][]byte{rowMessage('I', tableOID, tuple('N', text("1"), null))}, "outside a transaction"},
		{"a transaction in a transaction", [][]byte{begun, begun}, "inside another"},
		{"another transaction's commit", [][]byte{begun, commitMessage(0x101, 0x130)}, "commit at 0/101"},
		{"an unknown kind", [][]byte{begun, {'Z'}}, "unknown"},
		{"no kind", [][]byte{{}}, "message"},
		{"a streamed transaction", [][]byte{{'S', 0, 0, 0, 1, 1}}, "outside a transaction"},
		{"a relation that was not described", [][]byte{begun, rowMessage('I', 1, tuple('N', text("1"), null))}, "relation 1,"},
		{"a truncate of a relation that was not described", [][]byte{begun, truncateMessage(tableOID, 1)}, "relation 1,"},
		{"too few columns", [][]byte{begun, rowMessage('I', tableOID, tuple('N', text("1")))}, "1 columns"},
		{"a binary value", [][]byte{begun, rowMessage('I', tableOID, tuple('N', tupleColumn{kind: 'b'}, null))}, `'b'`},
		{"an insert with an old row", [][]byte{begun, rowMessage('I', tableOID, tuple('O', text("1"), null))}, `'O'`},
		{"a delete with a new row", [][]byte{begun, rowMessage('D', tableOID, tuple('N', text("1"), null))}, `'N'`},
		{"commit flags", [][]byte{begun, slices.Replace(commitMessage(0x100, 0x130), 1, 2, 1)}, "flags"},
		{"a replica identity of tomorrow", [][]byte{relationMessage(tableOID, 'x')}, "replica identity"},
		{"more columns than there can be", [][]byte{slices.Concat([]byte{'R'}, u32(1), cstring("a"), cstring("b"), []byte{'d'}, u16(5000))}, "5000 columns"},
		{"a transactional message outside a transaction", [][]byte{logicalMessage(true, "walhook", "")}, "outside a transaction"},
		{"a value longer than the message", [][]byte{begun,
			rowMessage('I', tableOID, slices.Concat([]byte{'N'}, u16(2), []byte{'t'}, u32(0xffffffff)))}, "too short"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := detached(schemas.Checkpoint{}, 0)
			s.relations[tableOID] = testRelation(t, 'd')
			_, err := decode(t, s, test.messages...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestDecode_NothingPointsIntoTheReceiveBuffer(t *testing.T) {
	s := detached(schemas.Checkpoint{}, 0)
	s.relations[tableOID] = testRelation(t, 'd')
	var lines []string
	for i := range maxPendingChanges - 1 { // without an appender
		data := walData(1, rowMessage('I', tableOID, tuple('N', text(fmt.Sprint(i)), text(strings.Repeat("x", i%300)))))
		if i == 0 {
			if err := s.copyData(t.Context(), walData(1, beginMessage(0x100, 5))); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.copyData(t.Context(), data); err != nil {
			t.Fatal(err)
		}
		clear(data)
		lines = append(lines, fmt.Sprintf("insert public.t new(id*=%d name=%s)", i, shorten(strings.Repeat("x", i%300))))
	}
	batch, err := decode(t, s, commitMessage(0x100, 0x130))
	if err != nil {
		t.Fatal(err)
	}
	for i, change := range batch.Changes {
		if got := line(change); got != lines[i] {
			t.Fatalf("change %d is %s, want %s", i, got, lines[i])
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, data := range everyMessage() {
		f.Add(data, true)
		f.Add(data, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, inTx bool) {
		s := detached(schemas.Checkpoint{}, 0)
		s.relations[tableOID] = testRelation(t, 'd')
		if inTx {
			s.inTx, s.tx = true, begin{commit: 0x100, xid: 5}
		}
		if len(data) > 25 && data[0] == 'w' && data[25] == 'R' {
			// After decoding it, the stream would query the source.
			_, _ = decodeRelation(&cursor{buf: data[26:]})
			return
		}
		_ = s.copyData(t.Context(), data)
	})
}
