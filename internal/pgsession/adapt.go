package pgsession

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// variables are the environment variables of libpq that pgx does not read
// (PostgreSQL manual, Environment Variables).
func variables() map[string]string {
	return map[string]string{
		"PGHOSTADDR": "hostaddr", "PGREQUIREPEER": "requirepeer", "PGLOADBALANCEHOSTS": "load_balance_hosts",
		"PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version", "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
		"PGSSLCRL": "sslcrl", "PGSSLCRLDIR": "sslcrldir", "PGSSLCOMPRESSION": "sslcompression", "PGGSSENCMODE": "gssencmode",
		"PGREQUIRESSL": "requiressl", "PGCLIENTENCODING": "client_encoding",
	}
}

// Adapt applies the parameters of libpq that pgx would send to the server as settings,
// which the server refuses. It returns the parameters without effect. Its error names a
// parameter without which the connection would be less safe, or an impossible value.
func Adapt(cfg *pgconn.Config) (ignored []string, err error) {
	a := adapter{cfg: cfg}
	for variable, name := range variables() {
		if value := os.Getenv(variable); value != "" && cfg.RuntimeParams[name] == "" {
			cfg.RuntimeParams[name] = value
		}
	}
	for _, one := range parameters {
		if value, given := cfg.RuntimeParams[one.name]; given {
			delete(cfg.RuntimeParams, one.name)
			if value = strings.TrimSpace(value); value != "" {
				if err := one.take(&a, value); err != nil {
					return nil, fmt.Errorf("%s: %w", one.name, err)
				}
			}
			if a.skipped {
				a.ignored, a.skipped = append(a.ignored, one.name), false
			}
		}
	}
	// Parameters of a pool, since a URL may be used without a pool, too.
	for name := range cfg.RuntimeParams {
		if strings.HasPrefix(name, "pool_") {
			delete(cfg.RuntimeParams, name)
		}
	}
	return a.ignored, a.finish()
}

// adapter collects parameters that belong together.
type adapter struct {
	cfg       *pgconn.Config
	ignored   []string
	skipped   bool
	dialer    *net.Dialer
	userWait  time.Duration // tcp_user_timeout
	addresses []string      // hostaddr
	random    bool          // load_balance_hosts
}

// parameter is one of libpq's that pgx does not have.
type parameter struct {
	name string
	take func(a *adapter, value string) error
}

// parameters are in the order in which Adapt applies them.
var parameters = []parameter{
	{"keepalives", func(a *adapter, v string) error {
		n, err := strconv.Atoi(v)
		if err == nil && n == 0 {
			a.tcp().KeepAliveConfig.Enable, a.tcp().KeepAlive = false, -1
		}
		return wantNumber(err)
	}},
	{"keepalives_idle", keepalive(func(c *net.KeepAliveConfig, n int) { c.Idle = time.Duration(n) * time.Second })},
	{"keepalives_interval", keepalive(func(c *net.KeepAliveConfig, n int) { c.Interval = time.Duration(n) * time.Second })},
	{"keepalives_count", keepalive(func(c *net.KeepAliveConfig, n int) { c.Count = n })},
	{"tcp_user_timeout", func(a *adapter, v string) error {
		n, err := strconv.Atoi(v)
		a.userWait = time.Duration(n) * time.Millisecond
		a.skipped = n > 0 && !hasUserTimeout
		return wantNumber(err)
	}},
	{"hostaddr", func(a *adapter, v string) error { a.addresses = strings.Split(v, ","); return nil }},
	{"load_balance_hosts", func(a *adapter, v string) error {
		a.random = v == "random"
		return oneOf(v, "disable", "random")
	}},
	{"requirepeer", func(a *adapter, v string) error {
		if !hasPeer {
			return errors.New("this system does not report the owner of a socket")
		}
		a.cfg.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
			return conn, checkPeer(conn, v)
		}
		return nil
	}},
	{"ssl_min_protocol_version", func(a *adapter, v string) error {
		return a.tls(v, func(c *tls.Config, version uint16) { c.MinVersion = version })
	}},
	{"ssl_max_protocol_version", func(a *adapter, v string) error {
		return a.tls(v, func(c *tls.Config, version uint16) { c.MaxVersion = version })
	}},
	{"gssencmode", func(_ *adapter, v string) error {
		if v == "require" {
			return errors.New("walhook does not support GSSAPI encryption: use sslmode=verify-full instead")
		}
		return oneOf(v, "disable", "prefer")
	}},
	{"sslcompression", func(a *adapter, v string) error { a.skipped = v != "0"; return nil }},
	{"sslcrl", refuse("walhook checks no revocation lists")},
	{"sslcrldir", refuse("walhook checks no revocation lists")},
	{"requiressl", func(_ *adapter, v string) error {
		if v == "0" {
			return nil
		}
		return errors.New("it is obsolete: use sslmode=require")
	}},
	{"scram_client_key", refuse("walhook authenticates with a password or a certificate")},
	{"scram_server_key", refuse("walhook authenticates with a password or a certificate")},
	{"oauth_issuer", refuse("walhook authenticates with a password or a certificate")},
	{"oauth_client_id", refuse("walhook authenticates with a password or a certificate")},
	{"oauth_client_secret", refuse("walhook authenticates with a password or a certificate")},
	{"oauth_scope", refuse("walhook authenticates with a password or a certificate")},
	// walhook sets these itself.
	{"application_name", ignore}, {"fallback_application_name", ignore}, {"client_encoding", ignore}, {"replication", ignore},
	// These have no effect, whatever their value.
	{"gssdelegation", ignore}, {"gsslib", ignore}, {"sslkeylogfile", ignore}, {"authtype", ignore}, {"tty", ignore},
}

func ignore(a *adapter, _ string) error { a.skipped = true; return nil }

func refuse(why string) func(*adapter, string) error {
	return func(*adapter, string) error { return errors.New(why + "; leave it out") }
}

func oneOf(value string, wanted ...string) error {
	if slices.Contains(wanted, value) {
		return nil
	}
	return fmt.Errorf("want %s", strings.Join(wanted, " or "))
}

func wantNumber(err error) error {
	if err != nil {
		return errors.New("want a whole number")
	}
	return nil
}

// keepalive reads a number for TCP's keepalive; 0 stands for the system's default.
func keepalive(set func(*net.KeepAliveConfig, int)) func(*adapter, string) error {
	return func(a *adapter, v string) error {
		n, err := strconv.Atoi(v)
		if err == nil && n > 0 {
			set(&a.tcp().KeepAliveConfig, n)
		}
		return wantNumber(err)
	}
}

func (a *adapter) tcp() *net.Dialer {
	if a.dialer == nil {
		// A negative value keeps the system's default.
		a.dialer = &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}}
	}
	return a.dialer
}

// tls sets a version of TLS, by libpq's name, for every attempt with TLS.
func (a *adapter) tls(name string, set func(*tls.Config, uint16)) error {
	version, ok := map[string]uint16{"TLSv1": tls.VersionTLS10, "TLSv1.1": tls.VersionTLS11, "TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}[name]
	if !ok {
		return oneOf(name, "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
	}
	for _, h := range hostsOf(a.cfg) {
		if h.TLSConfig != nil {
			set(h.TLSConfig, version)
		}
	}
	return nil
}

func (a *adapter) finish() error {
	if a.userWait > 0 && hasUserTimeout {
		a.tcp().Control = userTimeout(a.userWait)
	}
	if a.dialer != nil {
		a.cfg.DialFunc = a.dialer.DialContext
	}
	if a.addresses != nil {
		if err := a.lookUp(); err != nil {
			return fmt.Errorf("hostaddr: %w", err)
		}
	}
	if a.random {
		shuffle(a.cfg)
	}
	return nil
}

// lookUp resolves host names to the addresses of hostaddr. Certificates are still checked
// against the name.
func (a *adapter) lookUp() error {
	var names []string
	for i, h := range hostsOf(a.cfg) {
		before := hostsOf(a.cfg)[max(i-1, 0)]
		if i == 0 || h.Host != before.Host || h.Port != before.Port { // not the same host without TLS
			names = append(names, h.Host)
		}
	}
	if len(names) != len(a.addresses) {
		return fmt.Errorf("%d addresses for %d hosts", len(a.addresses), len(names))
	}
	addresses := map[string][]string{}
	for i, name := range names {
		switch address := strings.TrimSpace(a.addresses[i]); {
		case address == "":
		case strings.HasPrefix(name, "/"):
			return errors.New("write the address as the host")
		case net.ParseIP(address) == nil:
			return errors.New("want an IP address")
		default:
			addresses[name] = append(addresses[name], address)
		}
	}
	ask := a.cfg.LookupFunc
	a.cfg.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		if known := addresses[host]; known != nil {
			return known, nil
		}
		return ask(ctx, host)
	}
	return nil
}

// hostsOf returns the attempts of a connection in their order: each host, and again
// without TLS if that is allowed.
func hostsOf(cfg *pgconn.Config) []*pgconn.FallbackConfig {
	first := &pgconn.FallbackConfig{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}
	return append([]*pgconn.FallbackConfig{first}, cfg.Fallbacks...)
}

// shuffle changes the order of the hosts and keeps the attempts of one host together.
func shuffle(cfg *pgconn.Config) {
	var groups [][]*pgconn.FallbackConfig
	for _, h := range hostsOf(cfg) {
		if last := len(groups) - 1; last >= 0 && groups[last][0].Host == h.Host && groups[last][0].Port == h.Port {
			groups[last] = append(groups[last], h)
		} else {
			groups = append(groups, []*pgconn.FallbackConfig{h})
		}
	}
	rand.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
	all := slices.Concat(groups...)
	cfg.Host, cfg.Port, cfg.TLSConfig, cfg.Fallbacks = all[0].Host, all[0].Port, all[0].TLSConfig, all[1:]
}
