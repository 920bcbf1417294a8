package deliver

import (
	"bytes"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzFrames has the statuses of answers read from raw bytes, in pieces of any
// size. The pieces change nothing, and where net/http reads an answer too, it has
// that status.
func FuzzFrames(f *testing.F) {
	end := byte(flagEndHeaders | flagEndStream)
	fine := frameOf(frameHeaders, end, 1, 0x88)
	padded := append([]byte{3}, literalStatus("410")...)
	for _, said := range [][]byte{
		fine, append(slices.Clone(fine), frameOf(frameHeaders, end, 3, literalStatus("503")...)...),
		frameOf(frameHeaders, end|http2Padded, 1, append(padded, 0, 0, 0)...), frameOf(frameHeaders, end|http2Padded, 1, 200, 0x88),
		frameOf(frameHeaders, end|http2Priority, 1, 0, 0, 0, 0, 1, 0x88), frameOf(frameHeaders, end|http2Priority, 1, 0, 0),
		frameOf(frameHeaders, end|http2Priority|http2Padded, 1, 1, 0, 0, 0, 0, 1, 0x88, 0), frameOf(frameHeaders, end|http2Padded, 1),
		append(frameOf(frameHeaders, 0, 1, 0x08, 3), frameOf(frameContinuation, flagEndHeaders, 1, '2', '0', '0')...),
		append(frameOf(frameHeaders, 0, 1), frameOf(frameContinuation, flagEndHeaders, 1, 0x88)...),
		append(frameOf(frameData, 0, 1, make([]byte, 300)...), fine...), frameOf(frameHeaders, end, 1, 0x3f, 0xff, 0xff, 0x7f, 0x88),
		append(frameOf(frameHeaders, flagEndHeaders, 1, 0x08, 3, '1', '0', '3'), fine...), frameOf(frameHeaders, end, 1, 0x48, 3, '2', '0', '4', 0xbe),
		frameOf(frameHeaders, end, 1, append(literalStatus("200"), literalStatus("500")...)...), {0xff, 0xff, 0xff, 1, end, 0, 0, 0, 1, 0x88},
		append(frameOf(frameHeaders, end, 1, 0x88, 0, 1, 'x', 0x7f), fine...), []byte(strings.Repeat("\x00", 100)),
	} {
		f.Add(said, uint16(1))
		f.Add(said, uint16(7))
	}
	f.Fuzz(func(t *testing.T, said []byte, size uint16) {
		if len(said) > 32<<10 { // beyond, the bounds of the two differ
			return
		}
		read := func(size int) map[uint32]int {
			r := newFrames(nil)
			r.out.header(math.MaxInt32) // any stream is open
			for piece := range slices.Chunk(said, max(size, 1)) {
				r.in.follow(slices.Clone(piece))
			}
			return r.statuses
		}
		statuses := read(len(said))
		if pieces := read(int(size)); !maps.Equal(statuses, pieces) {
			t.Fatalf("%v whole, %v in pieces of %d", statuses, pieces, size)
		}
		for stream, status := range statuses {
			if status < 200 || status > 999 {
				t.Errorf("status %d of stream %d", status, stream)
			}
		}
		seen := map[uint32]bool{}
		theirs := http2.NewFramer(io.Discard, bytes.NewReader(said))
		theirs.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for len(statuses) < mostStatuses {
			frame, err := theirs.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.PushPromiseFrame:
				return // net/http ends the connection
			case *http2.MetaHeadersFrame:
				status, ok := statusOf(frame.PseudoValue("status"))
				if stream := frame.StreamID; ok && status >= 200 && !frame.Truncated && !seen[stream] {
					seen[stream] = true
					if statuses[stream] != status {
						t.Errorf("stream %d has the status %d, want %d", stream, statuses[stream], status)
					}
				}
			}
		}
	})
}
