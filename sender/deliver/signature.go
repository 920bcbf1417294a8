package deliver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"sync"

	"walhook/outbox"
)

// errSecret says that an endpoint has no secret that can be signed with. That
// is our fault and not the endpoint's.
var errSecret = errors.New("endpoint has no usable signing secret")

// signer signs with an endpoint's secrets. It is safe for many goroutines.
type signer struct {
	mu   sync.Mutex
	macs []hash.Hash // one per secret; guarded by mu
	buf  []byte      // guarded by mu
}

func newSigner(secrets []string) (*signer, error) {
	if len(secrets) == 0 {
		return nil, errSecret
	}
	s := &signer{}
	for i, secret := range secrets {
		key, err := outbox.SecretKey(secret)
		if err != nil {
			return nil, fmt.Errorf("%w: secret %d: %w", errSecret, i+1, err)
		}
		s.macs = append(s.macs, hmac.New(sha256.New, key))
	}
	return s, nil
}

// sign makes the value of the webhook-signature header: one "v1,<base64>" per
// secret, separated by spaces, each the HMAC-SHA256 of "id.timestamp.body"
// (Standard Webhooks 1.0, "Signature scheme"). timestamp is in whole seconds.
func (s *signer) sign(id, timestamp string, body []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := append(append(s.buf[:0], id...), '.')
	b = append(append(b, timestamp...), '.')
	signed := len(b)
	for i, mac := range s.macs {
		mac.Reset()
		mac.Write(b[:signed])
		mac.Write(body)
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, "v1,"...)
		var sum [sha256.Size]byte
		b = base64.StdEncoding.AppendEncode(b, mac.Sum(sum[:0]))
	}
	s.buf = b
	return string(b[signed:])
}
