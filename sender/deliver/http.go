package deliver

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"walhook/outbox"
)

// Config says how the HTTP destination makes its attempts. The zero Config is
// usable: each zero value means the default that its field names.
type Config struct {
	// Version goes into the User-Agent header, walhook/<version>. "" means "dev".
	Version string

	AttemptTimeout time.Duration // the whole attempt; zero means 20 s
	ConnectTimeout time.Duration // name resolution and TCP; zero means 5 s
	TLSTimeout     time.Duration // the handshake; zero means 5 s
	HeaderTimeout  time.Duration // from the end of the request to the end of the answer's header; zero means 15 s

	// AllowCIDR lists networks that endpoints may be in besides public ones.
	AllowCIDR []netip.Prefix
	// DenyCIDR lists networks that get nothing, even if they are public or allowed.
	DenyCIDR []netip.Prefix
	// AllowPorts lists the ports that endpoints may have. Nil means [DefaultPorts].
	AllowPorts []PortRange
	// EgressAddress is the local address that deliveries leave from. The
	// zero Addr means any.
	EgressAddress netip.Addr
	// RootCAs are the authorities whose certificates of receivers are valid. Nil means
	// the system's.
	RootCAs *x509.CertPool
	// CAFile names a PEM file with authorities besides the system's; "" means none. It is
	// read again when it changes, as are ClientCertificates.
	CAFile string
	// ClientCertificates are presented to receivers that ask for one: the first whose host
	// matches. Nil means none.
	ClientCertificates []ClientCertificate

	// NATSCredentials are what feeds over NATS sign in with. Nil means nothing.
	NATSCredentials []NATSCredentials

	// Client is the HTTP client to use. "" means ClientWalhook.
	Client Client

	// MaxIdle is how many connections are kept open between attempts; zero means
	// 4096.
	MaxIdle int
	// MayBegin reports whether a request may still begin. It is called as late as
	// possible, after the connection is made. An attempt that may not begin is [Held]
	// for [ReasonLeaseOver]. Nil means always.
	MayBegin func() bool
}

// Client names an HTTP client of the HTTP destination. Both behave the same; doc.go
// lists where they differ.
type Client string

const (
	// ClientWalhook speaks HTTP/1.1 itself, on the goroutine of the attempt, and uses
	// net/http for HTTP/2.
	ClientWalhook Client = "walhook"
	// ClientNetHTTP is net/http's client for both.
	ClientNetHTTP Client = "net/http"
)

// Validate lists every fault of c, joined, or returns nil.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"attempt timeout", c.AttemptTimeout}, {"connect timeout", c.ConnectTimeout},
		{"TLS timeout", c.TLSTimeout}, {"header timeout", c.HeaderTimeout},
	} {
		if d.value < 0 {
			fault("%s %v: want a positive duration", d.name, d.value)
		}
	}
	switch c.Client {
	case "", ClientWalhook, ClientNetHTTP:
	default:
		fault("client %q: want %s or %s", c.Client, ClientWalhook, ClientNetHTTP)
	}
	if c.MaxIdle < 0 {
		fault("max idle %d: want a positive number", c.MaxIdle)
	}
	for _, p := range c.AllowCIDR {
		if !p.IsValid() {
			fault("allowed network %q: want a CIDR such as 10.0.0.0/8", p)
		}
	}
	for _, p := range c.DenyCIDR {
		if !p.IsValid() {
			fault("denied network %q: want a CIDR such as 198.51.100.0/24", p)
		}
	}
	return errors.Join(faults...)
}

// WithDefaults returns c with its zero values replaced by the defaults.
func (c Config) WithDefaults() Config {
	c.Version = cmp.Or(c.Version, "dev")
	c.AttemptTimeout = cmp.Or(c.AttemptTimeout, 20*time.Second)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 5*time.Second)
	c.TLSTimeout = cmp.Or(c.TLSTimeout, 5*time.Second)
	c.HeaderTimeout = cmp.Or(c.HeaderTimeout, 15*time.Second)
	c.Client = cmp.Or(c.Client, ClientWalhook)
	c.MaxIdle = cmp.Or(c.MaxIdle, 4096)
	if c.AllowPorts == nil {
		c.AllowPorts = []PortRange{{80, 80}, {443, 443}, {1024, 65535}}
	}
	return c
}

const (
	maxAnswerHeader = 64 << 10        // bytes of an answer's header
	maxAnswerBody   = 4 << 10         // bytes read of an answer's body
	bodyTimeout     = 2 * time.Second // for reading them
	maxRequestURL   = 8 << 10         // bytes of a GET's URL: common servers accept no longer request line
	maxDetail       = 300             // bytes of Result.Detail
)

// HTTP delivers events as signed requests to the URLs of their endpoints. It is
// safe for many goroutines. [NewHTTP] makes one.
type HTTP struct {
	config  Config
	targets targets
	signers signers
	dialer  *dialer
	client  http.RoundTripper
	direct  direct // client, if it implements direct; else nil
}

// direct is implemented by a client that takes a call without an [http.Request]. The
// caller of roundTrip calls end afterwards.
type direct interface {
	roundTrip(*call) (*http.Response, error)
	end(*call)
}

// NewHTTP prepares an HTTP destination; it dials nothing.
func NewHTTP(c Config) (*HTTP, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("HTTP destination: %w", err)
	}
	h := newHTTP(c.WithDefaults())
	var err error
	if h.dialer.identities, err = newIdentities(&c); err != nil {
		return nil, fmt.Errorf("HTTP destination: %w", err)
	}
	return h, nil
}

func newHTTP(c Config) *HTTP {
	h := &HTTP{config: c, dialer: newDialer(c)}
	h.targets.userAgent = "walhook/" + c.Version
	if c.Client == ClientNetHTTP {
		h.use(newNetHTTP(&h.config, h.dialer, true))
	} else {
		h.use(newClient(&h.config, h.dialer))
	}
	return h
}

func (h *HTTP) use(client http.RoundTripper) {
	h.client = client
	h.direct, _ = client.(direct)
}

// Close closes idle connections.
func (h *HTTP) Close() { (&http.Client{Transport: h.client}).CloseIdleConnections() }

// Deliver makes one attempt: at most one request for the event. See
// [Destination].
func (h *HTTP) Deliver(ctx context.Context, e outbox.Endpoint, event outbox.Event) Result {
	at := time.Now()
	m, err := requestOf(&e, &event)
	r := h.send(ctx, e, m, err, at).result(at, time.Now())
	r.Batch = m.batch()
	return r
}

// DeliverBatch makes one attempt: at most one request for all the events. See
// [Destination].
func (h *HTTP) DeliverBatch(ctx context.Context, e outbox.Endpoint, events []outbox.Event) Result {
	at := time.Now()
	m, err := batchRequest(e.Settings, events)
	r := h.send(ctx, e, m, err, at).result(at, time.Now())
	r.Batch = m.batch()
	return r
}

// uniformMargin is how much longer than ConnectTimeout a [HTTP.Try] without an answer
// takes.
const uniformMargin = 250 * time.Millisecond

// Try makes one attempt whose result the account sees at once. An attempt without an
// answer takes the same time whatever the reason. Try stores and repeats nothing.
func (h *HTTP) Try(ctx context.Context, e outbox.Endpoint, event outbox.Event) outbox.Attempt {
	at := time.Now()
	a := h.deliver(ctx, e, event, at)
	if a.status == 0 {
		// How long a failure takes tells a closed port from a filtered one, and a
		// name that does not exist from one that leads inside.
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(at.Add(h.config.ConnectTimeout + uniformMargin))):
		}
	}
	r := a.result(at, time.Now())
	outcome := r.Outcome
	if outcome == Held && r.ForAccount() == string(failUnreachable) {
		outcome = Retry // the account does not see that this machine's network refuses an address
	}
	return r.Attempt(1, e.Revision, outcome)
}

// Render returns the request that an attempt of the event would make now, without making
// it, and without what each attempt has of its own: its time and its signature.
func (h *HTTP) Render(e outbox.Endpoint, event outbox.Event) (outbox.Rendered, error) {
	sent, err := requestOf(&e, &event)
	if err != nil {
		return outbox.Rendered{}, err
	}
	return outbox.Rendered{
		ID: sent.id, EventIDs: sent.eventIDs,
		Method: sent.method, ContentType: sent.contentType, UserAgent: h.targets.userAgent, Query: sent.query, Body: sent.body,
		Headers: namesOf(e.Headers),
	}, nil
}

func namesOf(headers []outbox.Header) (names []string) {
	for _, h := range headers {
		names = append(names, h.Name)
	}
	return names
}

// Sign returns the request that an attempt of the event at an instant makes, signed as it
// would be, by itself also for an endpoint with batches. The endpoint needs no URL.
func (h *HTTP) Sign(e outbox.Endpoint, event outbox.Event, at time.Time) (outbox.Rendered, error) {
	sent, err := render(e.Settings, &event)
	if err != nil {
		return outbox.Rendered{}, err
	}
	signer, err := h.signers.of(&e)
	if err != nil {
		return outbox.Rendered{}, fmt.Errorf("sign: %w", err)
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	return outbox.Rendered{
		Method: sent.method, ContentType: sent.contentType, UserAgent: h.targets.userAgent, Query: sent.query, Body: sent.body,
		Timestamp: timestamp, Signature: signer.sign(event.WebhookID, timestamp, sent.signed()),
	}, nil
}

// CheckSecret returns an error if no secret of the endpoint can be read, as with another
// --secret-key than the one that they were encrypted with: Sign would fail for every event.
func (h *HTTP) CheckSecret(e outbox.Endpoint) error {
	_, err := h.signers.of(&e)
	return err
}

// CheckHost returns a [*BlockedAddressError] if the host of a URL is, in whatever form,
// an address that deliveries must not go to, and a [*BlockedPortError] if its port is
// not allowed. It resolves no names: the guard checks the address when it is dialled,
// and the person who sets a URL must not learn which names exist. The caller has
// checked the URL's syntax.
func (h *HTTP) CheckHost(address string) error { return h.config.guard().checkURL(address) }

// answer is the result of one request before it is classified.
type answer struct {
	status     int
	failure    failure // "" when there is a status
	retryAfter string
	date       time.Time // the receiver's clock, for a date in Retry-After; zero for unknown
	// detail is for display: bounded, without secrets and without the event. With a
	// status it is the receiver's answer. Without one it is what happened on the way,
	// for the operator only, since it names addresses.
	detail string
}

// result classifies the answer to a request of an instant.
func (a answer) result(at, now time.Time) Result {
	r := classifyResponse(a.status, a.failure, a.retryAfter, a.clock(now))
	r.Detail, r.At, r.Duration = a.detail, at, now.Sub(at)
	return r
}

// clock is the receiver's present time, from which a date in Retry-After counts.
func (a answer) clock(now time.Time) time.Time {
	if a.date.IsZero() {
		return now
	}
	return a.date
}

// deliver makes at most one request for an event.
func (h *HTTP) deliver(ctx context.Context, e outbox.Endpoint, event outbox.Event, at time.Time) answer {
	m, err := requestOf(&e, &event)
	return h.send(ctx, e, m, err, at)
}

// send makes at most one request; fault is the error that rendering it met.
func (h *HTTP) send(ctx context.Context, e outbox.Endpoint, m namedRequest, fault error, at time.Time) answer {
	if fault != nil {
		return answer{failure: failRender, detail: clip(fault.Error())}
	}
	x := &attempt{http: h, sent: m, timestamp: strconv.FormatInt(at.Unix(), 10)}
	var err error
	if x.target, err = h.targets.of(&e); err != nil {
		class := failURL
		if errors.Is(err, errSecret) {
			class = failSecret
		}
		return answer{failure: class, detail: clip(err.Error())}
	}
	if x.sent.method == http.MethodGet {
		if n := len(x.url().String()); n > maxRequestURL {
			return answer{failure: failTooLarge, detail: fmt.Sprintf("the URL of the GET request would be %d bytes long, and servers accept %d: let the webhook use post", n, maxRequestURL)}
		}
	}
	x.signature = x.target.signer.sign(x.sent.id, x.timestamp, x.sent.signed())
	x.call.ctx, x.peer, x.message, x.body = ctx, x.target.peer, x, x.sent.body
	x.until = time.Now().Add(h.config.AttemptTimeout)
	defer x.end()
	var resp *http.Response
	switch err = h.config.guard().checkPort(x.target.port); {
	case err != nil:
	case h.direct != nil:
		resp, err = h.direct.roundTrip(&x.call)
	default:
		x.limit()
		resp, err = h.client.RoundTrip(x.request().WithContext(x.trace(x.limited)))
	}
	if err != nil {
		return x.failed(err, e)
	}
	return x.read(resp, e)
}

// attempt is one request of the HTTP destination.
type attempt struct {
	call
	http                 *HTTP
	target               *target
	sent                 namedRequest
	timestamp, signature string // the values of the request's webhook-… headers
}

// end ends the attempt, after its answer's body was read as far as needed.
func (x *attempt) end() {
	if direct := x.http.direct; direct != nil {
		direct.end(&x.call)
	} else {
		x.close()
	}
}

// failed makes the answer of an attempt with an error: its failure, or the status of
// an answer whose header did not end.
func (x *attempt) failed(err error, e outbox.Endpoint) answer {
	err = x.decisive(err)
	class := classifyError(err, x.cause(), &x.progress)
	if begun, ok := errors.AsType[*answerError](err); ok && begun.status != 0 {
		// Without err, which may name addresses of this machine: the account sees it.
		return answer{status: begun.status, detail: "HTTP " + strconv.Itoa(begun.status) + ", and an endless header (" + string(class) + ")"}
	}
	detail := strings.ReplaceAll(err.Error(), x.url().String(), "…")
	switch class {
	case failNoNetwork, failNoResource:
		if x.http.dialer.routes.onlyThere(err, time.Now()) {
			class = failNoRoute
		}
	case failDNS, failDNSNotFound, failDNSTimeout:
		if !x.http.dialer.servers.work(x.ctx) {
			class = failDNSHere
		}
	}
	return answer{failure: class, detail: x.keep(string(class)+", "+x.phase().String()+": "+detail+x.others(err)+class.hint(), e)}
}

// read takes the status, which alone decides, and the beginning of the body. Reading a
// short body to its end leaves the connection usable.
func (x *attempt) read(resp *http.Response, e outbox.Endpoint) answer {
	a := answer{status: resp.StatusCode}
	body, fault := readBody(resp, x.stop)
	if fault != "" {
		x.stop(errBodyTimeout) // closes the connection, so that Close drains nothing
	}
	resp.Body.Close()
	if a.status >= 200 && a.status < 300 && fault == "" {
		return a
	}
	a.detail = "HTTP " + strconv.Itoa(a.status) + fault
	if a.status < 300 {
		return a
	}
	a.retryAfter = resp.Header.Get("Retry-After")
	a.date, _ = http.ParseTime(resp.Header.Get("Date")) // the zero time when it has none
	resp.Request = &http.Request{URL: x.url()}          // what a Location is relative to
	if to, err := resp.Location(); err == nil && a.status < 400 {
		a.detail += ", not followed: " + to.Scheme + "://" + to.Host + to.EscapedPath()
	}
	if len(body) > 0 {
		a.detail += ": " + string(body)
	}
	a.detail = x.keep(a.detail, e)
	return a
}

// readBody reads a body up to its limits. fault describes a body that did not end
// properly, whose connection must be closed.
func readBody(resp *http.Response, cancel context.CancelCauseFunc) (body []byte, fault string) {
	if resp.Body == http.NoBody {
		return nil, ""
	}
	limit := time.AfterFunc(bodyTimeout, func() { cancel(errBodyTimeout) })
	// One byte more tells a body of exactly the limit from a longer one.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBody+1))
	switch inTime := limit.Stop(); {
	case len(body) > maxAnswerBody:
		return body, ", its body cut at " + strconv.Itoa(maxAnswerBody) + " bytes"
	case !inTime || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errAttemptTimeout):
		return body, ", and its body did not end within " + bodyTimeout.String()
	case err != nil:
		return body, ", and its body ended early"
	}
	return body, ""
}
