package schemas

import (
	"fmt"
	"strconv"
)

// Position names one change for ever: the LSN of its transaction's commit
// record, and which change message of that transaction it was, as the server
// streamed them, counted from 1 before any filter of ours.
//
// A change's own LSN would not do: rows of one COPY share it, and interleaved
// transactions arrive with falling LSNs. Positions rise strictly in the order
// of the stream. The zero Position stands before every change.
type Position struct {
	Commit  LSN
	Ordinal int64
}

// Compare orders positions as the stream does.
func (p Position) Compare(q Position) int {
	switch {
	case p.Commit < q.Commit:
		return -1
	case p.Commit > q.Commit:
		return 1
	case p.Ordinal < q.Ordinal:
		return -1
	case p.Ordinal > q.Ordinal:
		return 1
	}
	return 0
}

// String is for logs and errors: 0/16B3748#3.
func (p Position) String() string {
	return p.Commit.String() + "#" + strconv.FormatInt(p.Ordinal, 10)
}

// WebhookID is the webhook-id of the part-th event (from 0) that the change at
// p yields: evt_00000000016B3748_3, then evt_00000000016B3748_3b, _3c and so
// on. It depends on nothing but the change, so it stays the same through
// retries, restarts, resends and replays.
func (p Position) WebhookID(part int) string {
	id := fmt.Sprintf("evt_%016X_%d", uint64(p.Commit), p.Ordinal)
	if part == 0 {
		return id
	}
	return id + partSuffix(part)
}

// partSuffix counts b, c, … z, ba, bb, …: base 26 with "a" as its zero.
func partSuffix(part int) string {
	var digits [8]byte
	i := len(digits)
	for part > 0 {
		i--
		digits[i] = byte('a' + part%26)
		part /= 26
	}
	return string(digits[i:])
}
