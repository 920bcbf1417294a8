package cdc

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/schemas"
)

// sendStatus reports the stored position and nothing beyond. answer asks the
// server for a reply.
//
// A second update without a flush position follows in the same packet. The
// first one moves the slot. The second one keeps the WAL sender from being a
// synchronous standby, whatever synchronous_standby_names says: a standby whose
// flush position is not valid is no candidate (PostgreSQL,
// src/backend/replication/syncrep.c, SyncRepGetCandidateStandbys). Otherwise
// the carrier's commits would wait for the outbox, and an outbox on the same
// server would wait for itself.
func (s *stream) sendStatus(_ context.Context, now time.Time, answer bool) error {
	stored := s.flushed.Load()
	s.lastStatus, s.nextStatus = now, now.Add(statusEvery)
	if stored == 0 {
		return nil
	}
	buf, err := appendStatus(nil, stored, stored, now, answer)
	if err == nil {
		buf, err = appendStatus(buf, stored, 0, now, false)
	}
	if err == nil {
		err = s.conn.Frontend().SendUnbufferedEncodedCopyData(buf)
	}
	if err != nil {
		return fmt.Errorf("report position %s: %w", schemas.LSN(stored), err)
	}
	return nil
}

// appendStatus appends a standby status update (PostgreSQL manual, Streaming
// Replication Protocol). A flushed position of 0 is not valid.
func appendStatus(buf []byte, stored, flushed uint64, now time.Time, answer bool) ([]byte, error) {
	data := make([]byte, 0, 34)
	data = append(data, 'r')
	for _, position := range []uint64{stored, flushed, stored} { // written, flushed, applied
		data = binary.BigEndian.AppendUint64(data, position)
	}
	data = binary.BigEndian.AppendUint64(data, uint64(now.Sub(postgresEpoch).Microseconds()))
	reply := byte(0)
	if answer {
		reply = 1
	}
	return (&pgproto3.CopyData{Data: append(data, reply)}).Encode(buf)
}
