package schemas

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What names a record or an account goes into indexes of the outbox, whose
// entries are bounded (a B-tree of PostgreSQL: some 2,700 bytes).
const (
	// MaxKeyBytes bounds a record's key; a longer one is named by its hash.
	MaxKeyBytes = 1000
	// MaxAccountBytes bounds an account's id; nothing is sent to one whose id
	// is longer.
	MaxAccountBytes = 1000
)

// hashedKey begins the name of a key that is too long. A key that begins so by
// itself is hashed too: no two keys look alike.
const hashedKey = "sha256:"

// KeyOf makes a record's key of the texts of its key columns: the text itself
// of a single one, or those of several, each with its length so that no two
// keys look alike. Of a key that is longer than MaxKeyBytes, or no valid text
// (a database whose encoding is SQL_ASCII sends any bytes), it is the hash.
func KeyOf(texts [][]byte) string {
	key := texts[0]
	if len(texts) > 1 {
		key = nil
		for _, text := range texts {
			key = strconv.AppendInt(key, int64(len(text)), 10)
			key = append(append(key, ':'), text...)
		}
	}
	if len(key) > MaxKeyBytes || bytes.HasPrefix(key, []byte(hashedKey)) || !utf8.Valid(key) {
		sum := sha256.Sum256(key)
		return hashedKey + hex.EncodeToString(sum[:])
	}
	return string(key)
}

// Storable returns text as PostgreSQL can store it in a column of type text
// under the encoding UTF8: bytes that are not UTF-8, and NUL, become U+FFFD.
// Text that needs no change is returned as it is. Every text that comes from
// outside (an answer, a row of a database without an encoding, a request) goes
// through it before it becomes a parameter of a statement.
func Storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
