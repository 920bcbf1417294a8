package deliver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"walhook/outbox"
)

// target is what all requests to an endpoint have in common. Nothing of it
// changes, so many goroutines may use it.
type target struct {
	of      string // the endpoint's URL
	secrets []string

	url           *url.URL // as it is requested, without user name and password
	authorization string   // what they became; "" for none
	signer        *signer
	port          string
	peer          *peer

	// head is an HTTP/1.1 request from behind its method to its Host and
	// User-Agent, as net/http writes it; nil where that refuses to.
	head []byte
}

// newTarget prepares requests to an endpoint. User name and password of the URL
// become Basic authentication and leave the URL. Errors show nothing of either.
func newTarget(e *outbox.Endpoint, userAgent string) (*target, error) {
	u, zone, err := outbox.RequestURL(e.URL)
	if err != nil {
		return nil, err
	}
	t := &target{of: e.URL, secrets: e.Secrets, url: u}
	if t.signer, err = newSigner(e.Secrets); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		auth := http.Request{Header: http.Header{}}
		auth.SetBasicAuth(u.User.Username(), password)
		t.authorization = auth.Header.Get("Authorization")
		u.User = nil
	}
	t.port = portOf(u)
	address := net.JoinHostPort(u.Hostname(), t.port)
	if zone != "" {
		address = net.JoinHostPort(u.Hostname()+"%"+zone, t.port)
	}
	t.peer = newPeer(e.ID, u.Scheme, address)
	var head bytes.Buffer
	plain := http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{"User-Agent": {userAgent}}}
	if plain.Write(&head) == nil {
		t.head = bytes.TrimSuffix(bytes.TrimPrefix(head.Bytes(), []byte(plain.Method)), []byte("\r\n"))
	}
	return t, nil
}

// mostTargets is how many are kept: about a kilobyte each. To make one takes as
// long as signing twice.
const mostTargets = 4096

// targets keeps those of the endpoints that are sent to. It is safe for many
// goroutines.
type targets struct {
	userAgent string

	mu   sync.Mutex
	kept map[int64]*target // by endpoint; guarded by mu
}

func (t *targets) of(e *outbox.Endpoint) (*target, error) {
	t.mu.Lock()
	kept := t.kept[e.ID]
	t.mu.Unlock()
	if kept != nil && kept.of == e.URL && slices.Equal(kept.secrets, e.Secrets) {
		return kept, nil
	}
	made, err := newTarget(e, t.userAgent)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept == nil || len(t.kept) >= mostTargets {
		t.kept = map[int64]*target{}
	}
	t.kept[e.ID] = made
	return made, nil
}

// connKey is whose connection it is: no two endpoints share one, so that nothing
// a receiver says on it can be taken for an answer to another account.
type connKey struct {
	endpoint int64
	to       string // scheme, host and port
}

// peer is whom a call connects to.
type peer struct {
	key     connKey
	secure  bool   // TLS is spoken
	address string // host and port to dial
	// host stands for endpoint and address in URLs that an [http.RoundTripper] sees:
	// net/http keeps its connections by them.
	host string
}

func newPeer(endpoint int64, scheme, address string) *peer {
	return &peer{
		key:    connKey{endpoint, scheme + "://" + address},
		secure: scheme == "https", address: address,
		host: strconv.FormatInt(endpoint, 10) + "-" + hex.EncodeToString([]byte(address)) + ":443",
	}
}

// peerOf is the peer that a request's URL names. One that newPeer did not make
// the host of is nobody's endpoint.
func peerOf(u *url.URL) *peer {
	address := net.JoinHostPort(u.Hostname(), portOf(u))
	if coded := addressOf(address); coded != address {
		number, _, _ := strings.Cut(address, "-")
		if endpoint, err := strconv.ParseInt(number, 10, 64); err == nil {
			return newPeer(endpoint, u.Scheme, coded)
		}
	}
	return newPeer(0, u.Scheme, address)
}

// addressOf is the address that a host of newPeer stands for. Any other host
// stands for itself.
func addressOf(host string) string {
	_, coded, _ := strings.Cut(strings.TrimSuffix(host, ":443"), "-")
	address, err := hex.DecodeString(coded)
	if err != nil {
		return host
	}
	if _, _, err := net.SplitHostPort(string(address)); err != nil {
		return host
	}
	return string(address)
}

// portOf is a URL's port, its own or its scheme's.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

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
