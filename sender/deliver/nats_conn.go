package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"walhook/outbox/address"
)

// natsConn is the one connection to the servers of a URL, which all feeds of that URL
// share. It connects by itself, again and again.
type natsConn struct {
	nc *nats.Conn
	js jetstream.JetStream

	mu      sync.Mutex
	up      bool
	closed  bool
	last    error // why it is not up; guarded by mu, as are up and closed
	changed chan struct{}
	waiting map[*natsPublication]struct{} // in flight; guarded by mu
	used    time.Time
}

// natsPublication is one event in flight.
type natsPublication struct {
	subject string
	failed  chan error // of one error at most
}

const (
	natsReconnectWait = 250 * time.Millisecond
	natsPing          = 5 * time.Second // two without an answer end a connection
	natsWrite         = 5 * time.Second // a server that reads nothing for so long is gone
	natsIdle          = 10 * time.Minute
)

// natsOptions are what connections to the servers of a URL have in common.
type natsOptions struct {
	config     *Config
	dialer     *dialer
	identities *identities
}

// newNATSConn begins to connect. It waits for nothing.
func newNATSConn(o *natsOptions, text string) (*natsConn, error) {
	servers, err := address.Servers(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNATSURL, err)
	}
	names := make([]string, len(servers))
	for i, server := range servers {
		names[i] = server.String()
	}
	c := &natsConn{last: errNATSConnecting, changed: make(chan struct{}), waiting: map[*natsPublication]struct{}{}, used: time.Now()}
	options := []nats.Option{
		nats.Name(o.name()), nats.Timeout(o.config.ConnectTimeout), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(natsReconnectWait), nats.ReconnectJitter(natsReconnectWait, natsReconnectWait), nats.IgnoreAuthErrorAbort(),
		// What cannot be sent now fails now: it is in the outbox.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(natsPing), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(natsWrite),
		nats.SetCustomDialer(natsDialer{o}), nats.SkipHostLookup(),
		nats.ConnectHandler(func(*nats.Conn) { c.isUp() }), nats.ReconnectHandler(func(*nats.Conn) { c.isUp() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.isDown(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.isDown(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.complained(err) }),
		nats.ClosedHandler(func(nc *nats.Conn) { c.isClosed(nc.LastError()) }),
		o.tls(servers[0].Hostname()),
	}
	if file := credentialsFor(o.config.NATSCredentials, text); file != "" {
		login, err := natsLogin(file)
		if err != nil {
			return nil, err
		}
		options = append(options, login)
	}
	if c.nc, err = nats.Connect(strings.Join(names, ","), options...); err == nil {
		c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncTimeout(2*o.config.AttemptTimeout), jetstream.WithPublishAsyncMaxPending(natsPending))
	}
	if err != nil {
		if c.nc != nil {
			c.nc.Close()
		}
		return nil, fmt.Errorf("connect: %w", err)
	}
	if c.nc.IsConnected() {
		c.isUp()
	}
	return c, nil
}

// natsPending bounds the events in flight on a connection: more than all lanes have.
const natsPending = 1 << 16

var (
	errNATSConnecting = errors.New("connecting")
	errNATSURL        = errors.New("the feed's URL cannot be used")
)

func (o *natsOptions) name() string { return "walhook/" + o.config.Version }

// tls presents and trusts what receivers over HTTP are presented, and are trusted by.
func (o *natsOptions) tls(host string) nats.Option {
	return func(opts *nats.Options) error {
		opts.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: o.config.RootCAs,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return o.identities.present(host, time.Now()), nil
			},
		}
		if more := o.identities.authorities; more != nil {
			opts.RootCAsCB = func() (*x509.CertPool, error) { return more.current(time.Now()), nil }
		}
		return nil
	}
}

// natsDialer dials through the egress guard of feeds.
type natsDialer struct{ *natsOptions }

func (d natsDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d.config.ConnectTimeout, errors.New("connect to NATS: timed out"))
	defer cancel()
	return d.dialer.dial(ctx, network, address)
}

func (c *natsConn) isUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up, c.last = true, nil
	c.signalLocked()
}

func (c *natsConn) isDown(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.downLocked(err)
}

func (c *natsConn) isClosed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.downLocked(err)
}

// downLocked fails what is in flight: nobody will acknowledge it on this connection. The
// refusal of credentials stays the reason while nothing else is known.
func (c *natsConn) downLocked(err error) {
	switch {
	case err != nil:
		c.last = err
	case c.up || c.last == nil:
		c.last = nats.ErrDisconnected
	}
	c.up = false
	for one := range c.waiting {
		one.failLocked(c.last)
	}
	c.signalLocked()
}

// complained takes an error of the server: a permission fails what it is about, and the
// refusal of credentials becomes the reason of the disconnection that follows.
func (c *natsConn) complained(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		for one := range c.waiting {
			if strings.Contains(err.Error(), `"`+one.subject+`"`) { // the server says it in its text alone
				one.failLocked(err)
			}
		}
	case classifyNATSConnection(err) != failNATSDown:
		c.last = err
	}
}

func (c *natsConn) signalLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (p *natsPublication) failLocked(err error) {
	select {
	case p.failed <- err:
	default:
	}
}

// await waits until the connection is up, for a while.
func (c *natsConn) await(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		c.mu.Lock()
		up, closed, last, changed := c.up, c.closed, c.last, c.changed
		c.used = time.Now()
		c.mu.Unlock()
		switch {
		case up:
			return nil
		case closed || classifyNATSConnection(last) != failNATSDown:
			return last // it does not pass by itself soon
		}
		select {
		case <-changed:
		case <-timer.C:
			return last
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errAttemptTimeout) {
				return cause
			}
			return last
		}
	}
}

// begin registers a publication, unless the connection is down; end takes it out.
func (c *natsConn) begin(subject string) (*natsPublication, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.up {
		return nil, c.last
	}
	p := &natsPublication{subject, make(chan error, 1)}
	c.waiting[p] = struct{}{}
	return p, nil
}

func (c *natsConn) end(p *natsPublication) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, p)
}

// over says that another connection is to be made: this one is closed, or nobody used it.
func (c *natsConn) over(now time.Time) (closed, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed, now.Sub(c.used) > natsIdle && len(c.waiting) == 0
}
