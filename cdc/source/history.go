package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/schemas"
)

// A source that was restored from a copy of its files, without archive recovery, keeps its
// system identifier and its timeline, and soon its WAL is as long as before. What was
// committed after the copy is gone all the same, and other transactions have its numbers.
// What tells is the WAL itself: a commit record stands where the last transaction was read.

// historyTimeout bounds how long the source is asked for a piece of WAL.
const historyTimeout = 5 * time.Second

// Verify compares the source's WAL with the last commit that was read from it. It opens a
// connection of its own where the slot does not prove that the source had it. A server that
// does not have that piece of WAL any more, or does not give it to walhook's role, proves
// nothing: known is false then.
func (s *System) Verify(ctx context.Context, cfg Config, stored schemas.Checkpoint, slot SlotState) (known bool) {
	at := stored.Position.Commit
	switch {
	case stored.Xid == 0 || at == 0:
		return false // nothing was read since the snapshot
	case stored.Source.SystemID != s.id || stored.Source.Timeline != s.Timeline || slot.WALEnd < max(stored.Flush, at):
		return true // other checks see that
	case slot.Exists && slot.Confirmed > at:
		return true // a copy of the files has this of the slot only with the commit
	}
	record, err := cfg.readWAL(ctx, s.Timeline, at)
	if err != nil {
		return false
	}
	if !isCommit(record, stored.Xid, stored.CommittedAt) {
		s.lacks = fmt.Sprintf(gapReplaced, at, stored.Xid)
	}
	return true
}

// A WAL record begins with its length (4 bytes), the transaction (4), the record before it
// (8), info (1), the resource manager (1), padding (2) and a CRC (4).
const (
	recordHeader = 24
	recordPiece  = 64 // of a commit, the beginning that is read
)

// isCommit reports whether a record is the commit of a transaction at a time; the zero time
// is unknown. The commit of a prepared one does not name it in its header.
func isCommit(record []byte, xid uint32, at time.Time) bool {
	const resourceManager, commit, commitPrepared, kinds = 1, 0x00, 0x30, 0x70
	if len(record) < recordHeader || record[17] != resourceManager {
		return false
	}
	order := byteOrder(record)
	switch record[16] & kinds {
	case commitPrepared:
	case commit:
		if order.Uint32(record[4:]) != xid {
			return false
		}
	default:
		return false
	}
	committed, known := commitTime(record[recordHeader:], order)
	return !known || at.IsZero() || committed.Equal(at)
}

// byteOrder is the server's byte order: read in the other one, a length is enormous.
func byteOrder(record []byte) binary.ByteOrder {
	if binary.BigEndian.Uint32(record) < binary.LittleEndian.Uint32(record) {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// commitTime reads the time of a commit from what follows the header of its record: maybe
// blocks with the origin and the transaction above, and then the commit itself, of which
// the time comes first.
func commitTime(rest []byte, order binary.ByteOrder) (at time.Time, known bool) {
	const origin, above, long, short = 253, 252, 254, 255
	for len(rest) > 0 {
		skip := 0
		switch rest[0] {
		case origin:
			skip = 1 + 2
		case above:
			skip = 1 + 4
		case short, long:
			data := map[byte]int{short: 1 + 1, long: 1 + 4}[rest[0]]
			if len(rest) < data+8 {
				return at, false
			}
			return ProtocolTime(order.Uint64(rest[data:])), true
		default:
			return at, false
		}
		rest = rest[min(skip, len(rest)):]
	}
	return at, false
}

// Epoch is the instant from which time stamps of PostgreSQL count.
var Epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// ProtocolTime is a time of the replication protocol or of the WAL.
func ProtocolTime(micros uint64) time.Time {
	return Epoch.Add(time.Duration(int64(micros)) * time.Microsecond)
}

// readWAL reads the beginning of the record at a position, by physical replication.
func (c Config) readWAL(ctx context.Context, timeline int32, at schemas.LSN) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	conn, err := c.connectReplication(ctx)
	if err != nil {
		return nil, err
	}
	defer CloseConn(ctx, conn)
	results, err := conn.Exec(ctx, "SHOW wal_block_size").ReadAll()
	if err != nil {
		return nil, err
	}
	page, err := strconv.Atoi(string(results[0].Rows[0][0]))
	if err != nil {
		return nil, err
	}
	// pglogrepl reads WAL from a slot only.
	conn.Frontend().SendQuery(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", at, timeline)})
	if err := conn.Frontend().Flush(); err != nil {
		return nil, err
	}
	var wal []byte
	for {
		if record, whole := firstRecord(wal, at, page); whole {
			return record, nil
		}
		more, err := receiveWAL(ctx, conn)
		if err != nil {
			return nil, err
		}
		wal = append(wal, more...)
	}
}

// receiveWAL returns the next piece of WAL; nothing for a message that brings none.
func receiveWAL(ctx context.Context, conn *pgconn.PgConn) ([]byte, error) {
	message, err := conn.ReceiveMessage(ctx)
	if err != nil {
		return nil, err
	}
	switch message := message.(type) {
	case *pgproto3.CopyBothResponse, *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		return nil, nil
	case *pgproto3.CopyData:
		if len(message.Data) == 0 || message.Data[0] != pglogrepl.XLogDataByteID {
			return nil, nil
		}
		piece, err := pglogrepl.ParseXLogData(message.Data[1:])
		return slices.Clone(piece.WALData), err
	}
	return nil, errors.New("the source does not send its WAL")
}

// firstRecord returns the beginning of the record with which a piece of WAL begins, up to
// recordPiece bytes. It leaves out the header of the next page: 24 bytes, or 40 for the
// first one of a segment.
func firstRecord(wal []byte, at schemas.LSN, page int) (record []byte, whole bool) {
	const longHeader, short, long = 0x0002, 24, 40
	left := page - int(uint64(at)%uint64(page))
	if len(wal) < 4 {
		return nil, false // a record's length is in one page
	}
	length := int(min(max(byteOrder(wal).Uint32(wal), recordHeader), recordPiece))
	if length > left && len(wal) >= left {
		if len(wal) < left+4 {
			return nil, false
		}
		skip := short
		if info := wal[left+2:]; (binary.LittleEndian.Uint16(info)|binary.BigEndian.Uint16(info))&longHeader != 0 {
			skip = long
		}
		if len(wal) < left+skip {
			return nil, false
		}
		wal = slices.Concat(wal[:left], wal[left+skip:])
	}
	return wal[:min(length, len(wal))], len(wal) >= length
}
