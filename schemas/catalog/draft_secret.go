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
		"pin", "card", "cc", "cvv", "cvc", "ssn", "sin", "iban", "pan", "track1", "track2", "puk", "psk", "jwt", "bearer", "cert", "key", "keys", "salt", "otp", "totp", "mfa", "credential", "credentials", "auth", "private", "cookie", "session", "dob", "birthday"}
	secretParts = []string{"password", "passwd", "secret", "token", "apikey", "credential", "creditcard", "cardnumber", "pincode", "otpcode", "recoverycode", "resetcode", "securityanswer", "maidenname", "mothermaiden", "privatekey", "birth"}
	// secretEnds are ends of words: uipass, loginkey.
	secretEnds = []string{"pass", "pwd", "key", "salt"}
	// plainWords end so, or hold a part, and are none.
	plainWords = []string{"monkey", "hockey", "hotkey", "turkey", "donkey", "jockey", "whiskey", "compass", "encompass", "bypass", "surpass", "trespass", "overpass", "underpass", "secretary", "secretaries", "secretariat"}
	// numberWords are those that a number can be the secret of. The others, in a
	// number's name, are a count, a place in a hash table, a reference.
	numberWords = []string{"password", "passwd", "pass", "pwd", "pin", "card", "cc", "cvv", "cvc", "ssn", "sin", "otp", "token", "secret"}
	// kindWords end the name of what says how somebody authenticates, and not by what.
	kindWords = []string{"type", "method", "mode", "realm", "acl", "enabled", "required", "count", "digits"}
)

// isSecret says whether a column's name looks as if nobody else should read it. The
// number or UUID of a record is no secret, whatever that record is.
func isSecret(t *Table, column *TableColumn) bool {
	words := slices.DeleteFunc(nameWords(column.Name), func(w string) bool { return slices.Contains(plainWords, w) })
	if len(words) == 0 {
		return false
	}
	number := typeClass(column.Type) == "number"
	refers := t.foreignKeyOf(column.Name) != nil || slices.Contains([]string{"id", "uuid"}, words[len(words)-1]) || words[0] == "id"
	plain := number || column.Type == "uuid"
	if column.Type == "boolean" || plain && refers || plain && len(t.Key) == 1 && t.Key[0] == column.Name {
		return false
	}
	if number {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(numberWords, strings.TrimRight(w, digits)) })
	}
	all := strings.Join(words, "")
	if slices.Contains(kindWords, words[len(words)-1]) && !slices.ContainsFunc(secretParts, func(part string) bool { return strings.Contains(all, part) }) {
		return false
	}
	if slices.ContainsFunc(words, func(w string) bool {
		return slices.ContainsFunc(secretEnds, func(end string) bool { return strings.HasSuffix(w, end) })
	}) {
		return true
	}
	return slices.ContainsFunc(words, isSecretWord) ||
		slices.ContainsFunc(secretParts, func(part string) bool { return strings.Contains(all, part) })
}

const digits = "0123456789"

// isSecretWord says that a word, its singular, or what stands before its number is one of
// secretWords: pins, hashes, cvc2.
func isSecretWord(word string) bool {
	bare := strings.TrimRight(word, digits)
	return slices.ContainsFunc([]string{word, bare, strings.TrimSuffix(bare, "s"), strings.TrimSuffix(bare, "es")}, func(w string) bool {
		return slices.Contains(secretWords, w)
	})
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
