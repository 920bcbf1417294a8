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

// sealer encrypts the endpoints' secrets at rest. The zero sealer stores them
// as they are.
type sealer struct{ aead cipher.AEAD }

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
	return sealer{aead}, nil
}

func (s sealer) seal(secret string) string {
	if s.aead == nil {
		return secret
	}
	return sealedPrefix + base64.StdEncoding.EncodeToString(s.aead.Seal(nil, nil, []byte(secret), nil))
}

func (s sealer) open(stored string) (string, error) {
	text, sealed := strings.CutPrefix(stored, sealedPrefix)
	if !sealed {
		return stored, nil
	}
	if s.aead == nil {
		return "", errors.New("an endpoint's secret is encrypted and no secret key is set: set --secret-key to the key it was stored under")
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		raw, err = s.aead.Open(nil, nil, raw, nil)
	}
	if err != nil {
		return "", fmt.Errorf("decrypt an endpoint's secret: %w; is --secret-key the key it was stored under?", err)
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

// sampledSecrets is how many secrets tell whether the key is the right one.
const sampledSecrets = 50

const sampleSecretsSQL = `
	SELECT account, secret FROM walhook.endpoint WHERE deleted_at IS NULL AND state = 'active' ORDER BY id DESC LIMIT $1`

// ErrWrongKey says that no stored secret can be decrypted.
var ErrWrongKey = errors.New("no stored signing secret can be decrypted: --secret-key is not the key that they were stored under")

// CheckKey says whether the secret key is of any use: nil, or [ErrWrongKey] when
// none of the newest secrets can be decrypted. One that is damaged is no reason.
func (s *Store) CheckKey(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, sampleSecretsSQL, sampledSecrets)
	if err != nil {
		return fmt.Errorf("read the stored secrets: %w", err)
	}
	var account, secret string
	good, bad := 0, 0
	_, err = pgx.ForEachRow(rows, []any{&account, &secret}, func() error {
		if _, err := s.openSecrets(account, secret, nil); err != nil {
			bad++
		} else {
			good++
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("read the stored secrets: %w", err)
	case bad > 0 && good == 0:
		return ErrWrongKey
	}
	return nil
}
