package api

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
)

// place is where a reader of a feed goes on. Its text is the cursor.
type place struct {
	event    int64  // the last event that it has, or has passed
	timeline string // eight hexadecimal digits: the history that it was read on
}

const (
	cursorVersion = 1
	cursorBytes   = 1 + 8 + 4 + 4 // version, event, timeline, check
)

// cursor writes a place in the feed of a webhook. The check is of the webhook too: a
// cursor of another one is none.
func (p place) cursor(endpoint int64) string {
	b := binary.BigEndian.AppendUint64([]byte{cursorVersion}, uint64(p.event))
	timeline, _ := hex.DecodeString(p.timeline)
	b = append(b, append(timeline, 0, 0, 0, 0)[:4]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, checkOf(b, endpoint)))
}

func checkOf(b []byte, endpoint int64) uint32 {
	return crc32.ChecksumIEEE(binary.BigEndian.AppendUint64(append([]byte(nil), b...), uint64(endpoint)))
}

// placeOf reads a cursor of a webhook's feed.
func placeOf(cursor string, endpoint int64) (p place, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) != cursorBytes || b[0] != cursorVersion {
		return p, false
	}
	body, check := b[:cursorBytes-4], binary.BigEndian.Uint32(b[cursorBytes-4:])
	p = place{event: int64(binary.BigEndian.Uint64(b[1:])), timeline: hex.EncodeToString(b[9:13])}
	return p, p.event >= 0 && check == checkOf(body, endpoint)
}
