package sender

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// errSecret says that an endpoint has no secret that can be signed with. That
// is our fault and not the endpoint's.
var errSecret = errors.New("endpoint has no usable signing secret")

// sign makes the value of the webhook-signature header: one "v1,<base64>" per
// secret, separated by spaces, each the HMAC-SHA256 of "id.timestamp.body"
// (Standard Webhooks 1.0, "Signature scheme"). at counts in whole seconds.
func sign(secrets []string, id string, at time.Time, body []byte) (string, error) {
	if len(secrets) == 0 {
		return "", errSecret
	}
	prefix := make([]byte, 0, len(id)+24)
	prefix = append(append(prefix, id...), '.')
	prefix = append(strconv.AppendInt(prefix, at.Unix(), 10), '.')

	header := make([]byte, 0, 48*len(secrets))
	for i, secret := range secrets {
		key, err := secretKey(secret)
		if err != nil {
			return "", fmt.Errorf("secret %d: %w", i+1, err)
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(prefix)
		mac.Write(body)
		if i > 0 {
			header = append(header, ' ')
		}
		header = append(header, "v1,"...)
		header = base64.StdEncoding.AppendEncode(header, mac.Sum(nil))
	}
	return string(header), nil
}

// secretKey decodes whsec_<base64>. Errors never carry the secret.
func secretKey(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return nil, fmt.Errorf("%w: want whsec_ and base64", errSecret)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) == 0 {
		return nil, fmt.Errorf("%w: want whsec_ and base64", errSecret)
	}
	return key, nil
}
