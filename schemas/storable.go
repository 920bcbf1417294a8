package schemas

import "strings"

// Storable returns text as PostgreSQL can store it in a column of type text
// under the encoding UTF8: bytes that are not UTF-8, and NUL, become U+FFFD.
// Text that needs no change is returned as it is. Every text that comes from
// outside (an answer, a row of a database without an encoding, a request) goes
// through it before it becomes a parameter of a statement.
func Storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
