package deliver

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config says how the HTTP destination makes its attempts. The zero Config is
// usable: each zero value means the default that its field names.
type Config struct {
	// Version goes into the User-Agent header, walhook/<version>. "" means "dev".
	Version string

	AttemptTimeout time.Duration // the whole attempt; zero means 20 s
	ConnectTimeout time.Duration // name resolution and TCP; zero means 5 s
	TLSTimeout     time.Duration // the handshake; zero means 5 s
	HeaderTimeout  time.Duration // from the request written to the answer's header; zero means 15 s

	// AllowCIDR lists networks that endpoints may be in besides public ones.
	AllowCIDR []netip.Prefix
	// DenyCIDR lists networks that nothing is sent to, public or allowed or not.
	DenyCIDR []netip.Prefix
	// AllowPorts lists the ports that endpoints may have. Nil means those of
	// [DefaultPorts].
	AllowPorts []PortRange
	// EgressAddress is the local address that deliveries leave from. The
	// zero Addr means any.
	EgressAddress netip.Addr
	// RootCAs are the authorities that vouch for receivers. Nil means the system's.
	RootCAs *x509.CertPool

	// Client is who speaks HTTP. "" means ClientWalhook.
	Client Client

	// MaxIdle is how many connections are kept open between attempts; zero means
	// 4096.
	MaxIdle int
	// MayBegin says whether a request may still begin, as late as that can be
	// asked: after the connection is made. An attempt that may not begin is
	// [Held] for [ReasonLeaseOver]. Nil means always.
	MayBegin func() bool
}

// Client names who speaks HTTP for the HTTP destination. What both do is the
// same; doc.go lists where they differ.
type Client string

const (
	// ClientWalhook speaks HTTP/1.1 by itself, on the goroutine of the attempt,
	// and takes net/http for HTTP/2.
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

// WithDefaults is c with its zero values replaced by what they mean.
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
