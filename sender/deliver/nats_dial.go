package deliver

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsOptions are what connections to the servers of a URL have in common.
type natsOptions struct {
	config     *Config
	dialer     *dialer
	identities *identities
}

const (
	natsPing  = 5 * time.Second // two without an answer end a connection
	natsWrite = 5 * time.Second // a server that reads nothing for so long is gone

	// natsPending bounds the events in flight on a connection: more than all lanes have.
	natsPending = 1 << 16
)

// natsSession is one connection to one server. It never connects again: [natsConn] makes
// another one, with what the files of credentials and certificates say then.
type natsSession struct {
	server *url.URL
	nc     *nats.Conn
	js     jetstream.JetStream
	login  [sha256.Size]byte // of the credentials that it signed in with
	over   chan struct{}     // closed when the connection is
	leave  chan struct{}     // closed when natsConn is to use another one

	// Guarded by natsConn.mu:
	cause  error                 // why it ends, where the end itself does not say it
	left   bool                  // leave is closed
	acked  bool                  // a stream answered on it
	doubt  *time.Timer           // leaves it unless a stream answers before; nil while one answers
	taking bool                  // something was taken since the doubt began, and not acknowledged
	taken  map[string]*natsTaken // by prefix
}

// natsTarget says where to connect, and as whom.
type natsTarget struct {
	server *url.URL
	first  string // the host of the URL's first server: certificates go by it
	file   string // of credentials; "" for none
}

func (o *natsOptions) name() string { return "walhook/" + o.config.Version }

// open connects to a server, once. complained gets what the server says against the
// connection later.
func (o *natsOptions) open(ctx context.Context, to natsTarget, complained func(*natsSession, error)) (*natsSession, error) {
	s := &natsSession{over: make(chan struct{}), leave: make(chan struct{}), taken: map[string]*natsTaken{}}
	dial := &natsDialer{natsOptions: o, ctx: ctx}
	var asked atomic.Bool
	options := []nats.Option{
		nats.Name(o.name()), nats.Timeout(o.config.ConnectTimeout), nats.NoReconnect(),
		nats.PingInterval(natsPing), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(natsWrite),
		nats.SetCustomDialer(dial), nats.SkipHostLookup(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { complained(s, err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(s.over) }),
		o.tls(to, &asked),
	}
	login, err := readNATSLogin(to.file)
	if err != nil {
		return nil, err
	}
	if login.option != nil {
		options = append(options, login.option)
	}
	s.login = login.sum
	s.nc, err = nats.Connect(to.server.String(), options...)
	dial.done()
	if err != nil {
		if dial.err != nil {
			err = dial.err // of which the client says only that there is no server
		}
		return nil, login.explain(explainNATSTLS(err, asked.Load()), time.Now())
	}
	if s.server, err = url.Parse(s.nc.ConnectedUrl()); err == nil { // the client may know more servers
		s.js, err = jetstream.New(s.nc, jetstream.WithPublishAsyncTimeout(2*o.config.AttemptTimeout), jetstream.WithPublishAsyncMaxPending(natsPending))
	}
	if err != nil {
		s.nc.Close()
		return nil, err
	}
	return s, nil
}

// tls presents and trusts what receivers over HTTP are presented, and are trusted by. asked
// becomes true when the server asks for a certificate.
func (o *natsOptions) tls(to natsTarget, asked *atomic.Bool) nats.Option {
	return func(opts *nats.Options) error {
		opts.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: o.config.RootCAs,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked.Store(true)
				return o.identities.present(to.first, time.Now()), nil
			},
		}
		if more := o.identities.authorities; more != nil {
			opts.RootCAsCB = func() (*x509.CertPool, error) { return more.current(time.Now()), nil }
		}
		// Servers tell each other's addresses, and their certificates have names.
		if _, err := netip.ParseAddr(to.server.Hostname()); err == nil {
			if _, err := netip.ParseAddr(to.first); err != nil {
				opts.TLSConfig.ServerName = to.first
			}
		}
		return nil
	}
}

// explainNATSTLS says what to do about an error of a handshake.
func explainNATSTLS(err error, asked bool) error {
	hint := ""
	switch f := classifyTLS(err); {
	case asked && (isAboutOurCertificate(err, asked) || errors.Is(err, nats.ErrTLS) && isEnd(err)):
		hint = "the server asks for a client certificate: set --client-cert, or --client-certs for its host, to one that it accepts"
	case errors.Is(err, nats.ErrSecureConnWanted):
		hint = "the URL says tls:// and the server has no TLS: use nats://, or let the server use TLS"
	case f == failTLSExpired:
		hint = "the server's certificate has expired: renew it"
	case f == failTLSNotYetValid:
		hint = "the server's certificate is not valid yet: check its dates and this machine's clock"
	case f == failTLSHostname:
		hint = "the server's certificate is for another host: name the server in the feed's URL as its certificate does"
	case f == failTLSAuthority, f == failTLSSelfSigned, f == failTLSChain:
		hint = "this machine does not know the authority of the server's certificate: name its file with --ca-file"
	default:
		return err
	}
	return fmt.Errorf("%w: %s (%w)", errNATSTLS, hint, err)
}

var errNATSTLS = errors.New("no TLS with the server")

// natsDialer dials through the egress guard of feeds, for one call of the client.
type natsDialer struct {
	*natsOptions
	ctx  context.Context
	stop []func() bool // each ends a watch of ctx
	err  error         // of the last dial
}

// Dial implements [nats.CustomDialer]. The connection ends with ctx until done is called.
func (d *natsDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(d.ctx, d.config.ConnectTimeout, errors.New("connect to NATS: timed out"))
	defer cancel()
	var conn net.Conn
	if conn, d.err = d.dialer.dial(ctx, network, address); d.err != nil {
		return nil, d.err
	}
	d.stop = append(d.stop, context.AfterFunc(d.ctx, func() { conn.Close() }))
	return conn, nil
}

func (d *natsDialer) done() {
	for _, stop := range d.stop {
		stop()
	}
}
