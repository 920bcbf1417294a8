package source

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"walhook/schemas"
)

// commitRecord is a commit record as the WAL has it, in a byte order.
func commitRecord(order binary.ByteOrder, xid uint32, at time.Time, before []byte) []byte {
	data := make([]byte, 20)
	order.PutUint64(data, uint64(at.Sub(Epoch).Microseconds()))
	rest := slices.Concat(before, []byte{255, byte(len(data))}, data)
	record := make([]byte, recordHeader, recordHeader+len(rest))
	record = append(record, rest...)
	order.PutUint32(record, uint32(len(record)))
	order.PutUint32(record[4:], xid)
	record[16], record[17] = 0x80, 1
	return record
}

func TestIsCommit(t *testing.T) {
	at := time.Date(2026, time.March, 9, 14, 30, 0, 123456000, time.UTC)
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, before := range [][]byte{nil, {253, 1, 2}, {252, 1, 2, 3, 4}, {253, 1, 2, 252, 1, 2, 3, 4}} {
			record := commitRecord(order, 741, at, before)
			if !isCommit(record, 741, at) || !isCommit(record, 741, time.Time{}) {
				t.Errorf("%v %v: not the commit", order, before)
			}
			if isCommit(record, 742, at) || isCommit(record, 741, at.Add(time.Microsecond)) {
				t.Errorf("%v %v: another transaction is the commit too", order, before)
			}
			abort := slices.Clone(record)
			abort[16] = 0x20
			heap := slices.Clone(record)
			heap[17] = 10
			if isCommit(abort, 741, at) || isCommit(heap, 741, at) || isCommit(make([]byte, 64), 741, at) || isCommit(nil, 741, at) {
				t.Error("what is no commit is one")
			}
		}
	}
}

// A record may go on behind the header of the next page.
func TestFirstRecord_GoesAroundThePageHeader(t *testing.T) {
	const page = 8192
	record := commitRecord(binary.LittleEndian, 741, time.Now(), nil)
	for left := 8; left <= 80; left += 8 {
		for _, header := range []int{24, 40} {
			at := schemas.LSN(3*page - left)
			wal := slices.Clone(record)
			if left < len(record) {
				head := bytes.Repeat([]byte{7}, header)
				head[2], head[3] = 1, 0
				if header == 40 {
					head[2] = 3
				}
				wal = slices.Concat(record[:left], head, record[left:])
			}
			for end := range len(wal) {
				if got, whole := firstRecord(wal[:end], at, page); whole {
					t.Fatalf("%d before the page, header %d: %x is whole with %d of %d bytes", left, header, got, end, len(wal))
				}
			}
			if got, whole := firstRecord(append(wal, 1, 2, 3), at, page); !whole || !bytes.Equal(got, record) {
				t.Errorf("%d before the page, header %d: got %x, want %x", left, header, got, record)
			}
		}
	}
}
