package cdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

func frame(kind byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

// flaky reads a little at a time, and times out now and then.
type flaky struct {
	r   io.Reader
	rng *rand.Rand
}

var errTimeout = errors.New("timeout")

func (f flaky) Read(p []byte) (int, error) {
	if f.rng.IntN(4) == 0 {
		return 0, errTimeout
	}
	return f.r.Read(p[:min(len(p), 1+f.rng.IntN(300))])
}

// readAll reads with buffers of every length.
func readAll(t *testing.T, r io.Reader, rng *rand.Rand) []byte {
	t.Helper()
	var all []byte
	for {
		p := make([]byte, 1+rng.IntN(2000))
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil && !errors.Is(err, errTimeout) {
			t.Fatal(err)
		}
	}
}

// Messages within the limit pass unchanged, in whatever pieces they arrive. Of a longer
// row the shortener keeps the small values, and it does not change what follows.
func TestShortener_KeepsTheSmallValuesOfALongRow(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 100<<10)
	dropped := tupleColumn{kind: valueDropped}
	row := rowMessage('U', 77, append(tuple('O', text("1"), text(big), text("7")), tuple('N', text("2"), text("8"), text(big))...))
	plain := frame('d', walData(5, rowMessage('I', 77, tuple('N', text("9"), text("short"), text("7")))))
	message := walData(9, row)
	want := append([]byte{copyShortened}, binary.BigEndian.AppendUint64(nil, uint64(len(message)))...)
	small := rowMessage('U', 77, append(tuple('O', text("1"), dropped, text("7")), tuple('N', text("2"), text("8"), dropped)...))
	want = append(want, walData(9, small)[1:]...)
	logical := walData(3, append(append([]byte{'M', 1, 0, 0, 0, 0, 0, 0, 0, 1}, "someone\x00"...), append([]byte{0, 1, 144, 0}, make([]byte, 102400)...)...))
	wantLogical := append([]byte{copyShortened}, binary.BigEndian.AppendUint64(nil, uint64(len(logical)))...)
	wantLogical = append(append(wantLogical, logical[1:25]...), append([]byte{'M', 1, 0, 0, 0, 0, 0, 0, 0, 1}, "someone\x00"...)...)
	var stream, expected []byte
	for range 3 {
		stream = append(append(append(append(stream, plain...), frame('d', message)...), frame('D', []byte(big))...), frame('d', logical)...)
		expected = append(append(append(append(expected, plain...), frame('d', want)...), frame('D', []byte(big))...), frame('d', wantLogical)...)
	}
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var src io.Reader = flaky{bytes.NewReader(stream), rng}
		switch seed {
		case 0:
			src = bytes.NewReader(stream)
		case 1:
			src = iotest.OneByteReader(bytes.NewReader(stream))
		}
		got := readAll(t, &shortener{src: src, limit: 90 << 10, arrived: new(atomic.Uint64)}, rng)
		if !bytes.Equal(got, expected) {
			t.Fatalf("seed %d: %d bytes, want %d", seed, len(got), len(expected))
		}
	}
}

// A row beyond the limit takes no memory, counts as a change, and keeps its key and its
// owner. The reader reads on after it.
func TestReader_ALongRowTakesNoMemory(t *testing.T) { // alone: it measures the heap
	w := newWorld(t, "ALTER TABLE items ADD note bytea; ALTER TABLE items REPLICA IDENTITY FULL; ALTER TABLE items ALTER note SET STORAGE EXTERNAL;")
	w.cfg.MaxMessageBytes = 1 << 20
	w.start(t)
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			peak.HeapInuse = max(peak.HeapInuse, now.HeapInuse)
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	w.exec(t, "BEGIN", "INSERT INTO items VALUES (1, 7, 'small')",
		"INSERT INTO items SELECT 2, 8, 'long', convert_to(repeat('x', 24 << 20), 'UTF8')",
		"SELECT pg_logical_emit_message(true, 'other', repeat('y', 24 << 20))",
		"SELECT pg_logical_emit_message(true, 'walhook', repeat('y', 24 << 20))",
		"UPDATE items SET user_id = 9 WHERE id = 2", "COMMIT", "INSERT INTO items VALUES (3, 7, 'after')")
	w.settle(t)
	close(stop)
	<-watched
	if grown := int64(peak.HeapInuse) - int64(before.HeapInuse); grown > 24<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
	var got []string
	for _, c := range w.store.stored()[:5] {
		got = append(got, fmt.Sprintf("%d %t", c.Position.Ordinal, c.Oversize > 1<<20))
	}
	wantLines(t, w.lines(), []string{
		"insert public.items new(id*=1 user_id=7 name=small note=null)",
		"insert public.items new(id*=2 user_id=8 name=long note=?)",
		`message walhook ""`,
		"update public.items old(id*=2 user_id=8 name=long note=?) new(id*=2 user_id=9 name=long note=?)",
		"insert public.items new(id*=3 user_id=7 name=after note=null)",
	})
	if want := []string{"1 false", "2 true", "4 true", "5 true", "1 false"}; !slices.Equal(got, want) {
		t.Errorf("ordinals and whether they were too long: %q, want %q", got, want)
	}
}
