package deliver

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
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
