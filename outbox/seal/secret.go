package seal

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
)

// NewSecret makes a signing secret as Standard Webhooks 1.0 has it: whsec_ and
// the base64 of 24 to 64 random bytes.
func NewSecret() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand
	return "whsec_" + base64.StdEncoding.EncodeToString(key[:])
}

// errSecretForm says that a secret is none that Standard Webhooks 1.0 knows.
var errSecretForm = errors.New("want whsec_ and the base64 of a key")

// SecretKey decodes whsec_<base64>. Errors never carry the secret.
func SecretKey(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return nil, errSecretForm
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) == 0 {
		return nil, errSecretForm
	}
	return key, nil
}

// How the secrets of an endpoint e are read from its row (walhook.endpoint).
const (
	// EarlierSQL are those that sign besides the present one, the newest
	// first, and until when.
	EarlierSQL = `(SELECT b.secret, b.until, b.place
			FROM unnest(array_prepend(e.previous_secret, e.older_secrets), array_prepend(e.previous_until, e.older_until)) WITH ORDINALITY AS b(secret, until, place)
			WHERE b.until > statement_timestamp() ORDER BY b.place LIMIT 9)`
	// EarlierSecretsSQL and EarlierUntilSQL are its columns, as arrays.
	EarlierSecretsSQL = `ARRAY(SELECT l.secret FROM ` + EarlierSQL + ` l ORDER BY l.place)`
	EarlierUntilSQL   = `ARRAY(SELECT l.until FROM ` + EarlierSQL + ` l ORDER BY l.place)`

	// OlderSecretsSQL and OlderUntilSQL are those that stay when the present one becomes the
	// previous one. Beyond MaxSecrets the oldest ends.
	OlderSecretsSQL = `(` + EarlierSecretsSQL + `)[:8]`
	OlderUntilSQL   = `(` + EarlierUntilSQL + `)[:8]`
)

// Whether reseal has been run. StrictSQL: what is not bound to its endpoint is refused
// then; StrictURLSQL: user information in clear is.
const (
	StrictSQL    = `EXISTS (SELECT FROM walhook.sealing)`
	StrictURLSQL = `EXISTS (SELECT FROM walhook.sealing WHERE urls)`
)
