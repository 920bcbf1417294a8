package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"walhook/outbox/address"
)

// sealedPrefix marks a secret that is encrypted at rest: AES-256-GCM, nonce
// first, in base64.
const sealedPrefix = "sealed:v1:"

// boundPrefix marks one that is also bound to its endpoint ([Holder]): in the row
// of another it does not open.
const boundPrefix = "sealed:v2:"

var errNotBound = errors.New("the secret is not encrypted for its endpoint, although 'walhook endpoints reseal' has run: rotate it")

// Sealer encrypts at rest what an endpoint must not show. The zero Sealer, which has
// no key, stores it as it is.
type Sealer struct {
	aead     cipher.AEAD
	urls     cipher.AEAD // for user information of URLs, with a nonce made under nonceKey
	nonceKey []byte
	answers  []byte // part of the keys that remembered answers are encrypted under
	keyID    string // tells keys apart and nothing of them; "" without one
}

// New makes a sealer of a key of 32 bytes; of none, the zero Sealer.
func New(key []byte) (Sealer, error) {
	if len(key) == 0 {
		return Sealer{}, nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return Sealer{}, fmt.Errorf("secret key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return Sealer{}, fmt.Errorf("secret key: %w", err)
	}
	urlBlock, err := aes.NewCipher(derive(key, "walhook url key"))
	if err != nil {
		return Sealer{}, fmt.Errorf("secret key: %w", err)
	}
	urls, err := cipher.NewGCM(urlBlock)
	if err != nil {
		return Sealer{}, fmt.Errorf("secret key: %w", err)
	}
	return Sealer{aead, urls, derive(key, "walhook url nonce"), derive(key, "walhook answer key"), base64.RawStdEncoding.EncodeToString(derive(key, "walhook key id")[:12])}, nil
}

// HasKey says whether anything is encrypted.
func (s Sealer) HasKey() bool { return s.aead != nil }

// KeyID distinguishes keys and reveals nothing of them; "" without one.
func (s Sealer) KeyID() string { return s.keyID }

// Seal encrypts a secret for its endpoint.
func (s Sealer) Seal(secret string, of Holder) string {
	if s.aead == nil {
		return secret
	}
	return boundPrefix + base64.StdEncoding.EncodeToString(s.aead.Seal(nil, nil, []byte(secret), of.data()))
}

// Open decrypts what Seal made, and what was stored before secrets were bound
// or encrypted unless strict.
func (s Sealer) Open(stored string, of Holder, strict bool) (string, error) {
	text, bound := strings.CutPrefix(stored, boundPrefix)
	var data []byte
	if bound {
		data = of.data()
	} else {
		if strict {
			return "", errNotBound
		}
		var sealed bool
		if text, sealed = strings.CutPrefix(stored, sealedPrefix); !sealed {
			return stored, nil
		}
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

// OpenAll decrypts an endpoint's secrets, the newest first. One that came
// before is left out when it is the same. With an error it answers those that it
// could decrypt.
func (s Sealer) OpenAll(of Holder, strict bool, secret string, earlier []string) ([]string, error) {
	opened, err := s.Open(secret, of, strict)
	if err != nil {
		return nil, fmt.Errorf("secret of account %s: %w", of.Account, err)
	}
	secrets := []string{opened}
	var bad error
	for _, one := range earlier {
		before, err := s.Open(one, of, strict)
		if err != nil {
			bad = fmt.Errorf("previous secret of account %s, which also signs until it expires: %w", of.Account, err)
		} else if !slices.Contains(secrets, before) {
			secrets = append(secrets, before)
		}
	}
	return secrets, bad
}

// Reseal is a stored secret under this sealer's key and for its endpoint; before is
// the sealer of the key that it was stored under earlier.
func (s Sealer) Reseal(before Sealer, stored string, of Holder, strict bool) (text string, changed bool, err error) {
	secret, err := s.Open(stored, of, strict)
	if err == nil && IsBound(stored) {
		return stored, false, nil
	}
	if err != nil && before.HasKey() {
		secret, err = before.Open(stored, of, strict)
	}
	if err != nil {
		return "", false, err
	}
	return s.Seal(secret, of), true, nil
}

// IsBound says whether a stored secret is encrypted for one endpoint, and IsSealed
// whether it is encrypted at all.
func IsBound(stored string) bool { return strings.HasPrefix(stored, boundPrefix) }

// IsSealed is explained at [IsBound].
func IsSealed(stored string) bool { return IsBound(stored) || strings.HasPrefix(stored, sealedPrefix) }

// Size is how many bytes a stored secret has once it is decrypted, or up to two more.
func Size(stored string) int {
	text, bound := strings.CutPrefix(stored, boundPrefix)
	if !bound {
		return len(stored)
	}
	const nonce, tag = 12, 16
	return max(base64.StdEncoding.DecodedLen(len(text))-nonce-tag, 0)
}

// Holder is the endpoint that a secret or a URL is of: what is sealed for one opens
// for no other.
type Holder struct{ Account, Webhook string }

// bound is the holder that what is sealed is bound to. It stays the same when an
// ended account's own endpoint is renamed.
func (h Holder) bound() Holder {
	if strings.HasPrefix(h.Webhook, endedPrefix) {
		h.Webhook = AccountWebhook
	}
	return h
}

func (h Holder) data() []byte {
	h = h.bound()
	return fmt.Appendf(nil, "walhook secret %q %q", h.Account, h.Webhook)
}

// Header is the holder of the value of a header: it opens for requests to the same scheme,
// host and port only, and for no other name.
func (h Holder) Header(url, name string) Holder {
	h = h.bound()
	h.Webhook = fmt.Sprintf("%s/header/%s/%s", h.Webhook, strings.ToLower(name), address.Origin(url))
	return h
}

// endedPrefix begins the names that the own endpoints of ended accounts take. No
// webhook of the API has such an id.
const endedPrefix = "ended-"

// AccountWebhook is the webhook id of an account's own endpoint, whose URL is
// the account table's.
const AccountWebhook = "account"

// sealedUser stands where a URL has user name and password: AES-256-GCM, nonce
// first, in base64. Of what has no host, and so may be anything, all is sealed.
const sealedUser = "sealed.v2."

var errPlainURL = errors.New("the user name and password of the URL are in clear, although 'walhook endpoints reseal' has run: set the URL again")

// urlParts is a URL around its user information.
type urlParts struct{ before, user, after string }

// splitURL cuts a URL around its user information. has is false where it has none.
func splitURL(text string) (p urlParts, has bool) {
	u, err := address.Parse(text)
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

// isOrdinaryURL says without parsing that a URL has no user information: those of nearly
// all accounts are of letters, digits and what needs no encoding.
func isOrdinaryURL(text string) bool {
	rest, ok := strings.CutPrefix(text, "https://")
	if !ok {
		rest, ok = strings.CutPrefix(text, "http://")
	}
	host, path, _ := strings.Cut(rest, "/")
	return ok && host != "" && strings.Trim(host, ordinaryHost) == "" && strings.Trim(path, ordinaryHost+"/_") == ""
}

// ordinaryHost are the characters of a host that isOrdinaryURL knows.
const ordinaryHost = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-."

// data binds user information to the endpoint and to the rest of the URL, host included.
func (p urlParts) data(of Holder) []byte {
	of = of.bound()
	return fmt.Appendf(nil, "walhook url %q %q %q %q", of.Account, of.Webhook, p.before, p.after)
}

// SealURL encrypts what a URL says of user name and password. The nonce is made
// of key and text: the same URL of an endpoint looks the same each time, so that
// SQL sees whether it changed.
func (s Sealer) SealURL(text string, of Holder) string {
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

// OpenURL is what SealURL was given, and what was stored in clear unless strict.
func (s Sealer) OpenURL(stored string, of Holder, strict bool) (string, error) {
	if !strict && !strings.Contains(stored, sealedUser) || strict && isOrdinaryURL(stored) {
		return stored, nil // without parsing it: a publisher opens those of all accounts
	}
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

// IsPlainURL says whether a stored URL shows user information.
func IsPlainURL(stored string) bool {
	p, has := splitURL(stored)
	return has && !strings.HasPrefix(p.user, sealedUser)
}

// ResealURL is a stored URL with its user information under this sealer's key.
func (s Sealer) ResealURL(before Sealer, stored string, of Holder, strict bool) (text string, changed bool, err error) {
	text, err = s.OpenURL(stored, of, strict)
	if err != nil && before.HasKey() {
		text, err = before.OpenURL(stored, of, strict)
	}
	if err != nil {
		return "", false, err
	}
	sealed := s.SealURL(text, of)
	return sealed, sealed != stored, nil
}

// What is kept of an account's row for the rules of the catalog may hold the
// passwords of its URLs. Under a key it is encrypted, each column by itself and
// bound to its account and place: no JSON begins as a sealed text does.

// columnHolder is what a kept column is bound to. No webhook has such an id.
func columnHolder(account string, i int) Holder {
	return Holder{account, fmt.Sprint("account_column/", i)}
}

// SealColumns encrypts columns; without a key, or of a column that was not
// sent, it is the same.
func (s Sealer) SealColumns(account string, columns []string) []string {
	if s.aead == nil {
		return columns
	}
	sealed := make([]string, len(columns))
	for i, column := range columns {
		if column != "" {
			sealed[i] = s.Seal(column, columnHolder(account, i))
		}
	}
	return sealed
}

// OpenColumns is what SealColumns was given, and what was stored without a key.
func (s Sealer) OpenColumns(account string, stored []string) ([]string, error) {
	columns := make([]string, len(stored))
	for i, text := range stored {
		if !IsBound(text) {
			columns[i] = text
			continue
		}
		var err error
		if columns[i], err = s.Open(text, columnHolder(account, i), true); err != nil {
			return nil, errors.New("an account column cannot be decrypted: check that --secret-key is the key that encrypted it")
		}
	}
	return columns, nil
}

// ResealColumns are stored columns under this sealer's key.
func (s Sealer) ResealColumns(before Sealer, account string, stored []string) (columns []string, changed bool, err error) {
	plain := make([]string, len(stored))
	for i, text := range stored {
		of := columnHolder(account, i)
		opened, err := s.Open(text, of, false)
		switch {
		case err == nil:
			changed = changed || text != "" && !IsBound(text)
		case before.HasKey():
			opened, err = before.Open(text, of, true)
			changed = true
		}
		if err != nil {
			return nil, false, err
		}
		plain[i] = opened
	}
	return s.SealColumns(account, plain), changed, nil
}

// Answers encrypts what was answered to a request with an Idempotency-Key: under proof
// and key, which only the caller knows, and under the secret key where there is one. An
// answer may hold a token, which is stored nowhere else.
func (s Sealer) Answers(proof [sha256.Size]byte, key string) (cipher.AEAD, error) {
	mac := hmac.New(sha256.New, s.answers)
	fmt.Fprintf(mac, "walhook answer %x %q", proof, key)
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// derive makes a key of its own for one purpose.
func derive(key []byte, purpose string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}
