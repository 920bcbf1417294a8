package catalog

import (
	"slices"
	"strings"
	"unicode"
)

// secretWords are words of a column's name by which it looks secret, and secretParts
// what a name holds anywhere.
var (
	secretWords = []string{"password", "passwd", "passphrase", "pass", "pwd", "pw", "hash", "ha1", "ha1b", "md5", "sha1", "sha256", "token", "secret", "secrets",
		"pin", "card", "cc", "cvv", "cvc", "ssn", "sin", "iban", "key", "keys", "salt", "otp", "totp", "mfa", "credential", "credentials", "auth", "private", "cookie", "session", "dob", "birthday"}
	secretParts = []string{"password", "passwd", "secret", "token", "apikey", "credential", "creditcard", "cardnumber", "privatekey"}
)

// isSecret says whether a column's name looks as if nobody else should read it. The
// number or UUID of a record is no secret, whatever that record is.
func isSecret(t *Table, column *TableColumn) bool {
	words := nameWords(column.Name)
	if len(words) == 0 {
		return false
	}
	number := typeClass(column.Type) == "number" || column.Type == "uuid"
	refers := t.foreignKeyOf(column.Name) != nil || slices.Contains([]string{"id", "uuid"}, words[len(words)-1]) || words[0] == "id"
	if column.Type == "boolean" || number && refers || number && len(t.Key) == 1 && t.Key[0] == column.Name {
		return false
	}
	all := strings.Join(words, "")
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(secretWords, w) }) ||
		slices.ContainsFunc(secretParts, func(part string) bool { return strings.Contains(all, part) })
}

// nameWords splits snake_case and camelCase into words in lower case.
func nameWords(name string) []string {
	var words []string
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			words = append(words, strings.ToLower(word.String()))
			word.Reset()
		}
	}
	lower := false
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			end()
			lower = false
			continue
		case unicode.IsUpper(r) && lower:
			end()
		}
		lower = unicode.IsLower(r)
		word.WriteRune(r)
	}
	end()
	return words
}
