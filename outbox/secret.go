package outbox

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// sealedPrefix marks a secret that is encrypted at rest: AES-256-GCM, nonce
// first, in base64.
const sealedPrefix = "sealed:v1:"

// boundPrefix marks one that is also bound to its endpoint (holder): in the row
// of another it does not open.
const boundPrefix = "sealed:v2:"

// holder is the endpoint that a secret is of.
type holder struct{ account, webhook string }

// bound is the holder that what is sealed is bound to. It stays the same when an
// ended account's own endpoint is renamed.
func (h holder) bound() holder {
	if strings.HasPrefix(h.webhook, endedPrefix) {
		h.webhook = AccountWebhook
	}
	return h
}

func (h holder) data() []byte {
	h = h.bound()
	return fmt.Appendf(nil, "walhook secret %q %q", h.account, h.webhook)
}

// endedPrefix begins the names that the own endpoints of ended accounts take
// (retireOwnSQL). No webhook of the API has such an id.
const endedPrefix = "ended-"

// strictSQL says whether reseal has been run: whatever is not bound is refused then.
const strictSQL = `EXISTS (SELECT FROM walhook.sealing)`

var errNotBound = errors.New("the secret is not encrypted for its endpoint, although 'walhook endpoints reseal' has run: rotate it")

// sealer encrypts the endpoints' secrets at rest. The zero sealer stores them
// as they are.
type sealer struct {
	aead     cipher.AEAD
	urls     cipher.AEAD // for user information of URLs, with a nonce made under nonceKey
	nonceKey []byte
	answers  []byte // part of the keys that remembered answers are encrypted under
	keyID    string // tells keys apart and nothing of them; "" without one
}

func newSealer(key []byte) (sealer, error) {
	if len(key) == 0 {
		return sealer{}, nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, fmt.Errorf("secret key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return sealer{}, fmt.Errorf("secret key: %w", err)
	}
	urlBlock, err := aes.NewCipher(derive(key, "walhook url key"))
	if err != nil {
		return sealer{}, fmt.Errorf("secret key: %w", err)
	}
	urls, err := cipher.NewGCM(urlBlock)
	if err != nil {
		return sealer{}, fmt.Errorf("secret key: %w", err)
	}
	return sealer{aead, urls, derive(key, "walhook url nonce"), derive(key, "walhook answer key"), base64.RawStdEncoding.EncodeToString(derive(key, "walhook key id")[:12])}, nil
}

func (s sealer) seal(secret string, of holder) string {
	if s.aead == nil {
		return secret
	}
	return boundPrefix + base64.StdEncoding.EncodeToString(s.aead.Seal(nil, nil, []byte(secret), of.data()))
}

// open decrypts what seal made, and what was stored before secrets were bound
// or encrypted unless strict.
func (s sealer) open(stored string, of holder, strict bool) (string, error) {
	text, bound := strings.CutPrefix(stored, boundPrefix)
	data := of.data()
	if !bound {
		if strict {
			return "", errNotBound
		}
		var sealed bool
		if text, sealed = strings.CutPrefix(stored, sealedPrefix); !sealed {
			return stored, nil
		}
		data = nil
	}
	if s.aead == nil {
		return "", errors.New("an endpoint's secret is encrypted and no secret key is set: set --secret-key to the key that encrypted it")
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		raw, err = s.aead.Open(nil, nil, raw, data)
	}
	if err != nil {
		return "", fmt.Errorf("decrypt an endpoint's secret: %w; check that --secret-key is the key that encrypted it, and that the row was not copied from another endpoint", err)
	}
	return string(raw), nil
}

// newSecret makes a signing secret as Standard Webhooks 1.0 has it: whsec_ and
// the base64 of 24 to 64 random bytes.
func newSecret() string {
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

// sampledSecrets is how many secrets tell whether the key is the right one.
const sampledSecrets = 50

const sampleSecretsSQL = `
	SELECT account, webhook, secret, ` + strictSQL + `, coalesce((SELECT key_id FROM walhook.sealing), '') FROM walhook.endpoint WHERE deleted_at IS NULL AND state = 'active' ORDER BY id DESC LIMIT $1`

// ErrWrongKey says that no stored secret can be decrypted.
var ErrWrongKey = errors.New("no stored signing secret can be decrypted: --secret-key is not the key that encrypted them")

// CheckKey says whether the secret key is of any use: nil, or [ErrWrongKey] when
// none of the newest secrets can be decrypted, unless it is known to be the key.
// One that is damaged is no reason.
func (s *Store) CheckKey(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, sampleSecretsSQL, sampledSecrets)
	if err != nil {
		return fmt.Errorf("read the stored secrets: %w", err)
	}
	var of holder
	var secret, keyID string
	var strict bool
	good, bad := 0, 0
	_, err = pgx.ForEachRow(rows, []any{&of.account, &of.webhook, &secret, &strict, &keyID}, func() error {
		if _, err := s.openSecrets(of, strict, secret, nil); err != nil {
			bad++
		} else {
			good++
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("read the stored secrets: %w", err)
	case bad > 0 && good == 0 && (keyID == "" || keyID != s.secrets.keyID):
		return ErrWrongKey
	}
	return nil
}
