package deliver

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/seal"
	"walhook/schemas"
)

// target is what all requests to an endpoint have in common. It never changes, so many
// goroutines may use it.
type target struct {
	of      string // the endpoint's URL
	secrets []string
	own     []outbox.Header // the endpoint's

	url     *url.URL        // of requests: without user name and password
	headers []outbox.Header // by name, besides those that each request has of its own
	signer  *signer
	port    string
	peer    *peer

	// head is the part of an HTTP/1.1 request after its method, up to its Host and
	// User-Agent, as net/http writes it; nil if net/http refuses to.
	head []byte
	// around are the lines of headers, as appendHead needs them: before Content-Type,
	// between it and webhook-id, and after webhook-timestamp.
	around [3][]byte
}

// newTarget prepares requests to an endpoint. It turns user name and password of the
// URL into Basic authentication. Its errors show neither of them.
func newTarget(e *outbox.Endpoint, userAgent string) (*target, error) {
	u, zone, err := address.RequestURL(e.URL)
	if err != nil {
		return nil, err
	}
	t := &target{of: e.URL, secrets: e.Secrets, own: e.Headers, url: u, headers: slices.Clone(e.Headers)}
	if t.signer, err = newSigner(e.Secrets); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		auth := http.Request{Header: http.Header{}}
		auth.SetBasicAuth(u.User.Username(), password)
		if isAuthorization := func(h outbox.Header) bool { return strings.EqualFold(h.Name, "Authorization") }; !slices.ContainsFunc(t.headers, isAuthorization) {
			t.headers = append(t.headers, outbox.Header{Name: "Authorization", Value: auth.Header.Get("Authorization")})
		}
		u.User = nil
	}
	// net/http writes headers in the order of their bytes.
	slices.SortFunc(t.headers, func(a, b outbox.Header) int { return strings.Compare(a.Name, b.Name) })
	for _, h := range t.headers {
		at := &t.around[0]
		switch {
		case h.Name > headerTimestamp:
			at = &t.around[2]
		case h.Name > headerContentType:
			at = &t.around[1]
		}
		*at = appendHeader(*at, h.Name+": ", h.Value)
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

// mostTargets is how many targets are kept, of about a kilobyte each. Making one takes
// as long as signing twice.
const mostTargets = 4096

// targets keeps the targets of endpoints. It is safe for many goroutines.
type targets struct {
	userAgent string

	mu   sync.Mutex
	kept map[int64]*target // by endpoint; guarded by mu
}

func (t *targets) of(e *outbox.Endpoint) (*target, error) {
	t.mu.Lock()
	kept := t.kept[e.ID]
	t.mu.Unlock()
	if kept != nil && kept.of == e.URL && slices.Equal(kept.secrets, e.Secrets) && slices.Equal(kept.own, e.Headers) {
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

// connKey says which endpoint a connection belongs to. No two endpoints share one, so
// that no bytes of a receiver can count as an answer to another account's request.
type connKey struct {
	endpoint int64
	to       string // scheme, host and port
}

// peer is the receiver that a call connects to.
type peer struct {
	key     connKey
	secure  bool   // over TLS
	address string // host and port to dial
	// host encodes endpoint and address as the host of the URL that an
	// [http.RoundTripper] gets: net/http pools its connections by it.
	host string
}

func newPeer(endpoint int64, scheme, address string) *peer {
	return &peer{
		key:    connKey{endpoint, scheme + "://" + address},
		secure: scheme == "https", address: address,
		host: strconv.FormatInt(endpoint, 10) + "-" + hex.EncodeToString([]byte(address)) + ":443",
	}
}

// peerOf is the peer of a request's URL. A host that newPeer did not make belongs to
// no endpoint.
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

// addressOf decodes the address in a host of newPeer. It returns any other host as it
// is.
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

// portOf is a URL's port, or its scheme's default.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// errSecret says that an endpoint has no secret to sign with. That is a local error and
// not the endpoint's.
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
		key, err := seal.SecretKey(secret)
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

// The formats of endpoints and events (docs/CONTRACT.md §7).
const (
	formatEnvelope = "envelope"    // {"type":…,"schema":…,"data":"…"}, data being a JSON string
	formatJSON     = "json"        // the object itself
	formatForm     = "form"        // application/x-www-form-urlencoded
	formatCloud    = "cloudevents" // CloudEvents 1.0, structured
)

const (
	typeJSON  = "application/json"
	typeForm  = "application/x-www-form-urlencoded"
	typeCloud = "application/cloudevents+json"
)

// request is one event in the format of its endpoint. The signature covers the body, or
// for a GET, which has none, the added query.
type request struct {
	method      string
	contentType string // "" without a body
	body        []byte
	query       string // added to the URL's own
}

func (r *request) signed() []byte {
	if r.method == http.MethodGet {
		return []byte(r.query)
	}
	return r.body
}

// render makes the request of an event. For an endpoint without settings, as most are,
// its body is that of the event log, unchanged.
func render(s *outbox.EndpointSettings, event *outbox.Event) (request, error) {
	r := request{method: http.MethodPost, contentType: typeJSON, body: event.Body}
	if s == nil && event.Format == "" {
		return r, nil
	}
	if s == nil {
		s = &outbox.EndpointSettings{}
	}
	switch s.HTTPVerb {
	case "get":
		r.method, r.contentType, r.body = http.MethodGet, "", nil
	case "put":
		r.method = http.MethodPut
	}
	format := cmp.Or(s.Format, event.Format, formatEnvelope)
	asStored := format == formatEnvelope
	if event.Format != "" {
		asStored = format == formatJSON
	}
	if r.method != http.MethodGet && asStored && s.CustomData == nil {
		return r, nil
	}
	if format == formatCloud && r.method != http.MethodGet {
		r.contentType = typeCloud
		body, err := cloudEvent(s.CustomData, event)
		if err != nil {
			return request{}, fmt.Errorf("render: %w", err)
		}
		r.body = body
		return r, nil
	}
	members, err := compose(s.CustomData, event, format)
	if err != nil {
		return request{}, fmt.Errorf("render: %w", err)
	}
	switch {
	case r.method == http.MethodGet:
		var query []byte
		query, err = schemas.AppendForm(nil, members)
		r.query = string(query)
	case format == formatForm:
		r.contentType = typeForm
		r.body, err = schemas.AppendForm(make([]byte, 0, len(event.Body)), members)
	default:
		r.body = schemas.AppendObject(make([]byte, 0, len(event.Body)+len(s.CustomData)), members)
	}
	if err != nil {
		return request{}, fmt.Errorf("render: %w", err)
	}
	return r, nil
}

// compose merges the custom data into an event, and wraps it as the format says. The
// event log stores events of the record feed as envelopes, and all others as objects.
func compose(custom []byte, event *outbox.Event, format string) ([]schemas.Member, error) {
	members, err := schemas.ParseObject(event.Body)
	if err != nil {
		return nil, err
	}
	if custom != nil {
		own, err := schemas.ParseObject(custom)
		if err != nil {
			return nil, fmt.Errorf("custom data: %w", err)
		}
		for _, m := range own {
			members = schemas.SetMember(members, m)
		}
	}
	if event.Format == "" {
		if format == formatJSON {
			openData(members)
		}
		return members, nil
	}
	if format == formatEnvelope {
		return []schemas.Member{
			schemas.StringMember("type", []byte(event.Type)),
			schemas.StringMember("schema", []byte(event.Schema)),
			schemas.StringMember("data", schemas.AppendObject(nil, members)),
		}, nil
	}
	return members, nil
}

// cloudEvent writes an event as a CloudEvent, whose data is the record, or for other
// events their body.
func cloudEvent(custom []byte, event *outbox.Event) ([]byte, error) {
	members, err := schemas.ParseObject(event.Body)
	if err != nil {
		return nil, err
	}
	e := schemas.CloudEvent{
		ID: event.WebhookID, Schema: event.Schema, Type: event.Type, Record: event.Record, Time: event.CommittedAt, Custom: custom, Data: event.Body,
	}
	if event.Format == "" {
		openData(members)
		for _, m := range members {
			if m.Name == "data" {
				e.Data = m.Value
			}
		}
	}
	return e.Append(make([]byte, 0, len(event.Body)+len(custom)+300)), nil
}

// openData turns an envelope's data into an object. It leaves data that custom data has
// replaced with something else.
func openData(members []schemas.Member) {
	for i := range members {
		if members[i].Name != "data" {
			continue
		}
		var text string
		if json.Unmarshal(members[i].Value, &text) != nil {
			return
		}
		if _, err := schemas.ParseObject([]byte(text)); err == nil {
			members[i].Value = json.RawMessage(text)
		}
	}
}

// url is the request's URL: for a GET with the added query.
func (x *attempt) url() *url.URL {
	if x.sent.method != http.MethodGet {
		return x.target.url
	}
	u := *x.target.url
	address.JoinQuery(&u, x.sent.query)
	return &u
}

// The headers that each request has of its own, besides User-Agent.
const (
	headerContentType = "Content-Type"
	headerID          = "webhook-id"
	headerEventIDs    = "webhook-event-ids"
	headerSignature   = "webhook-signature"
	headerTimestamp   = "webhook-timestamp"
)

// request returns a new request for each try, since its body is read once. The names
// of headers are in the case of docs/CONTRACT.md, on the wire too. The URL's host
// encodes the peer.
func (x *attempt) request() *http.Request {
	u := *x.url()
	host := u.Host
	u.Host = x.peer.host
	header := http.Header{
		"User-Agent":    {x.http.targets.userAgent},
		headerID:        {x.sent.id},
		headerTimestamp: {x.timestamp},
		headerSignature: {x.signature},
	}
	if x.sent.account != "" {
		header[accountHeader] = []string{x.sent.account}
	}
	if x.sent.contentType != "" {
		header[headerContentType] = []string{x.sent.contentType}
	}
	if x.sent.eventIDs != "" {
		header[headerEventIDs] = []string{x.sent.eventIDs}
	}
	for _, h := range x.target.headers {
		header[h.Name] = []string{h.Value}
	}
	// Without a body the header must end the stream. Over HTTP/2 net/http recognizes
	// http.NoBody alone, and a proxy turns a stream that stays open into a chunked body.
	body := func() (io.ReadCloser, error) {
		if len(x.sent.body) == 0 {
			return http.NoBody, nil
		}
		return io.NopCloser(bytes.NewReader(x.sent.body)), nil
	}
	first, _ := body() // never fails
	return &http.Request{
		Method: x.sent.method,
		URL:    &u, Host: host,
		Header:        header,
		Body:          first,
		GetBody:       body,
		ContentLength: int64(len(x.sent.body)),
	}
}

// appendHead appends the request's head in HTTP/1.1: the same bytes as net/http writes
// for request, most of which the target holds.
func (x *attempt) appendHead(b []byte) ([]byte, error) {
	if x.sent.method == http.MethodGet || x.target.head == nil {
		req := x.request()
		req.Body = nil // a GET has none; for any other method Write fails before the body
		head := bytes.NewBuffer(b)
		err := req.Write(head)
		return head.Bytes(), err
	}
	b = append(append(b, x.sent.method...), x.target.head...)
	b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(x.sent.body)), 10), "\r\n"...)
	b = append(b, x.target.around[0]...)
	b = appendHeader(b, headerContentType+": ", x.sent.contentType)
	b = append(b, x.target.around[1]...)
	if x.sent.account != "" {
		b = appendHeader(b, accountHeader+": ", x.sent.account)
	}
	if x.sent.eventIDs != "" {
		b = appendHeader(b, headerEventIDs+": ", x.sent.eventIDs)
	}
	b = appendHeader(b, headerID+": ", x.sent.id)
	b = appendHeader(b, headerSignature+": ", x.signature)
	b = appendHeader(b, headerTimestamp+": ", x.timestamp)
	b = append(b, x.target.around[2]...)
	return append(b, "\r\n"...), nil
}

func appendHeader(b []byte, name, value string) []byte {
	return append(append(append(b, name...), value...), "\r\n"...)
}
