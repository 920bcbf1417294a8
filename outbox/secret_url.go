package outbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// sealedUser stands where a URL has user name and password: AES-256-GCM, nonce
// first, in base64. Of what has no host, and so may be anything, all is sealed.
const sealedUser = "sealed.v2."

// strictURLSQL says whether reseal has been run: user information in clear is refused then.
const strictURLSQL = `EXISTS (SELECT FROM walhook.sealing WHERE urls)`

var errPlainURL = errors.New("the user name and password of the URL are in clear, although 'walhook endpoints reseal' has run: set the URL again")

// urlParts is a URL around its user information.
type urlParts struct{ before, user, after string }

// splitURL cuts a URL around its user information. has is false where it has none.
func splitURL(text string) (p urlParts, has bool) {
	u, err := parseEncoded(text)
	switch {
	case text == "":
		return p, false
	case err != nil || u.Host == "":
		return urlParts{user: text}, true
	case u.User == nil:
		return p, false
	}
	begin := strings.Index(text, "://") + len("://")
	end := len(text)
	if i := strings.IndexAny(text[begin:], "/?#"); i >= 0 {
		end = begin + i
	}
	at := begin + strings.LastIndex(text[begin:end], "@")
	if at < begin {
		return urlParts{user: text}, true
	}
	return urlParts{text[:begin], text[begin:at], text[at:]}, true
}

// data binds user information to the endpoint and to the rest of the URL, host included.
func (p urlParts) data(of holder) []byte {
	of = of.bound()
	return fmt.Appendf(nil, "walhook url %q %q %q %q", of.account, of.webhook, p.before, p.after)
}

// sealURL encrypts what a URL says of user name and password. The nonce is made
// of key and text: the same URL of an endpoint looks the same each time, so that
// SQL sees whether it changed.
func (s sealer) sealURL(text string, of holder) string {
	p, has := splitURL(text)
	if s.urls == nil || !has {
		return text
	}
	data := p.data(of)
	mac := hmac.New(sha256.New, s.nonceKey)
	fmt.Fprintf(mac, "%q %q", data, p.user)
	nonce := mac.Sum(nil)[:s.urls.NonceSize()]
	return p.before + sealedUser + base64.RawURLEncoding.EncodeToString(s.urls.Seal(nonce, nonce, []byte(p.user), data)) + p.after
}

// openURL is what sealURL was given, and what was stored in clear unless strict.
func (s sealer) openURL(stored string, of holder, strict bool) (string, error) {
	p, has := splitURL(stored)
	if !has {
		return stored, nil
	}
	text, sealed := strings.CutPrefix(p.user, sealedUser)
	switch {
	case !sealed && strict:
		return "", errPlainURL
	case !sealed:
		return stored, nil
	case s.urls == nil:
		return "", errors.New("an endpoint's URL is encrypted and no secret key is set: set --secret-key to the key that encrypted it")
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	n := s.urls.NonceSize()
	if err == nil && len(raw) < n {
		err = errors.New("it is too short")
	}
	if err == nil {
		raw, err = s.urls.Open(nil, raw[:n], raw[n:], p.data(of))
	}
	if err != nil {
		// A fault of base64 quotes no more than a position.
		return "", fmt.Errorf("decrypt an endpoint's URL: %w; check that --secret-key is the key that encrypted it, and that the row was not copied from another endpoint", err)
	}
	return p.before + string(raw) + p.after, nil
}

// isPlainURL says whether a stored URL shows user information.
func isPlainURL(stored string) bool {
	p, has := splitURL(stored)
	return has && !strings.HasPrefix(p.user, sealedUser)
}

// derive makes a key of its own for one purpose.
func derive(key []byte, purpose string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}
