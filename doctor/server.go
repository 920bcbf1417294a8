package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// The versions of PostgreSQL that walhook is tested with.
const (
	oldestMajor = 14 // the first whose pgoutput carries logical messages
	newestMajor = 18
)

// Options are the settings of the checks of a database.
type Options struct {
	// OldTransaction is how long a transaction may run; zero means 15 minutes.
	OldTransaction time.Duration
	// Now is this machine's clock; nil means time.Now.
	Now func() time.Time
}

const defaultOldTransaction = 15 * time.Minute

// WithDefaults returns o with defaults for its zero values.
func (o Options) WithDefaults() Options {
	if o.OldTransaction == 0 {
		o.OldTransaction = defaultOldTransaction
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// ServerChecks are the checks of [Server].
func ServerChecks(where string) []string {
	return []string{where + ".version", where + ".pooler", where + ".tls", where + ".clock"}
}

// Server makes the checks that both databases get.
func (s *Session) Server(ctx context.Context, r *Report, o Options) {
	s.version(r)
	s.pooler(r)
	s.transport(r)
	s.clock(ctx, r, o)
}

func (s *Session) version(r *Report) {
	id, major := s.ID("version"), s.Version/10000
	switch {
	case major < oldestMajor:
		r.Fail(id, Steps{{Kind: Shell, Text: fmt.Sprintf("pg_upgrade to PostgreSQL %d or newer", oldestMajor)}},
			"PostgreSQL %s is older than %d", s.Value("server_version"), oldestMajor)
	case major > newestMajor:
		r.Warn(id, Steps{{Kind: Shell, Text: "install a newer walhook"}},
			"PostgreSQL %s is newer than this walhook supports (%d to %d)", s.Value("server_version"), oldestMajor, newestMajor)
	default:
		r.OK(id, "PostgreSQL %s", s.Value("server_version"))
	}
}

// pooler checks whether the server itself answers.
func (s *Session) pooler(r *Report) {
	if !s.pooled {
		r.OK(s.ID("pooler"), "no pooler: the server itself answers")
		return
	}
	fix := Step{Kind: Address, On: s.Where, Text: "host=ADDRESS port=PORT"}
	if s.used {
		fix.Note = "of the PostgreSQL server itself; or set server_reset_query = DISCARD ALL in PgBouncer's configuration, and reload it"
		r.Fail(s.ID("pooler"), Steps{fix}, "a connection pooler in session mode answers that does not reset its sessions: settings and prepared statements of one client reach the next")
		return
	}
	fix.Note = "of the PostgreSQL server itself, if reachable: walhook has its own pool"
	r.Warn(s.ID("pooler"), Steps{fix}, "a connection pooler in session mode answers: each of walhook's connections occupies one of its sessions permanently")
}

// transport checks how the connection is encrypted.
func (s *Session) transport(r *Report) {
	conn := s.PgConn().Conn()
	var state *tls.ConnectionState
	if secured, ok := conn.(*tls.Conn); ok {
		now := secured.ConnectionState()
		state = &now
	}
	config := s.Config().TLSConfig
	verified := config != nil && (!config.InsecureSkipVerify || config.VerifyPeerCertificate != nil)
	checkTransport(r, s.Where, conn.RemoteAddr(), state, verified)
}

func checkTransport(r *Report, where string, peer net.Addr, state *tls.ConnectionState, verified bool) {
	id := where + ".tls"
	fix := Steps{{Kind: Address, On: where, Text: "sslmode=verify-full",
		Note: "with sslrootcert=FILE if an authority of your own signed the server's certificate"}}
	switch {
	case state != nil && verified:
		r.OK(id, "%s, with verification of the server's certificate", tls.VersionName(state.Version))
	case isLocal(peer):
		r.OK(id, "the server is on this machine (%s)", peer.Network())
	case state != nil:
		r.Warn(id, fix, "%s to %s, without verification of the server's certificate: an attacker on the network can read everything", tls.VersionName(state.Version), peer)
	default:
		r.Warn(id, fix, "no TLS to %s: rows and the password exchange travel in clear text", peer)
	}
}

func isLocal(peer net.Addr) bool {
	if tcp, ok := peer.(*net.TCPAddr); ok {
		return tcp.IP.IsLoopback()
	}
	_, unix := peer.(*net.UnixAddr)
	return unix
}

// Bounds of the difference between the clocks of two machines. Receivers commonly
// refuse signatures that are older than five minutes.
const (
	skewWarned = 2 * time.Second
	skewFailed = time.Minute
)

func (s *Session) clock(ctx context.Context, r *Report, o Options) {
	id := s.ID("clock")
	var theirs time.Time
	before := o.Now()
	if err := s.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&theirs); err != nil {
		s.Unseen(r, err, id)
		return
	}
	checkClock(r, s.Where, before, theirs, o.Now())
}

func checkClock(r *Report, where string, before, theirs, after time.Time) {
	id, trip := where+".clock", after.Sub(before)
	skew := theirs.Sub(before.Add(trip / 2))
	by, which := skew.Abs().Round(time.Millisecond), "ahead of"
	if skew < 0 {
		which = "behind"
	}
	fix := Steps{{Kind: Shell, Text: "timedatectl set-ntp true", Note: "on the machine whose clock is wrong"}}
	const what = "the clock of the %s is %s %s this machine's: timestamps of signatures and ages are wrong by that much"
	switch sure := skew.Abs() - trip/2; {
	case sure > skewFailed:
		r.Fail(id, fix, what, where, by, which)
	case sure > skewWarned:
		r.Warn(id, fix, what, where, by, which)
	default:
		r.OK(id, "%s %s this machine's, with an accuracy of %s", by, which, (trip / 2).Round(time.Microsecond))
	}
}

// Unseen notes a warning for checks whose query failed.
func (s *Session) Unseen(r *Report, err error, ids ...string) {
	for _, id := range ids {
		r.Warn(id, Run("walhook doctor"), "the check failed: %v", err)
	}
}
