package schemas

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Keys and account ids are indexed in the outbox, and an entry of a B-tree index
// has a maximum size (about 2,700 bytes in PostgreSQL).
const (
	// MaxKeyBytes bounds a record's key; a longer key is replaced by its hash.
	MaxKeyBytes = 1000
	// MaxAccountBytes bounds an account's id; walhook sends nothing to an account
	// with a longer id.
	MaxAccountBytes = 1000
)

// hashedKey is the prefix of a hashed key. A key that has this prefix by itself is
// hashed too, so that no two keys collide.
const hashedKey = "sha256:"

// KeyOf builds a record's key from the texts of its key columns. The key of one
// column is its text. The key of several columns holds each text with its length,
// so that no two keys collide. KeyOf returns a hash for a key that is longer than
// MaxKeyBytes or not valid UTF-8 (a database with the encoding SQL_ASCII sends any
// bytes).
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

// SplitKey returns the texts that KeyOf built a key of a number of columns from. It
// returns false for a hash.
func SplitKey(key string, columns int) (texts [][]byte, ok bool) {
	if strings.HasPrefix(key, hashedKey) {
		return nil, false
	}
	if columns == 1 {
		return [][]byte{[]byte(key)}, true
	}
	for key != "" {
		length, rest, found := strings.Cut(key, ":")
		n, err := strconv.Atoi(length)
		if !found || err != nil || n < 0 || n > len(rest) {
			return nil, false
		}
		texts, key = append(texts, []byte(rest[:n])), rest[n:]
	}
	return texts, len(texts) == columns
}

// Storable returns text as PostgreSQL can store it in a column of type text
// under the encoding UTF8: bytes that are not UTF-8, and NUL, become U+FFFD.
// Text that needs no change is returned as it is. Every text from outside (a
// response, a row of an SQL_ASCII database, a request) passes through Storable
// before it becomes a parameter of a statement.
func Storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
