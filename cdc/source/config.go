package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/internal/pgsession"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Config says which source to read, and how.
type Config struct {
	// URL of the carrier's database; several hosts are allowed, the primary
	// is used. Required.
	URL string
	// URLNow reads the URL for each connection, from a file whose password may be
	// rotated; nil for URL.
	URLNow func() (string, error)
	// Slot and Publication are the names that setup uses. Empty means "walhook".
	Slot        string
	Publication string
	// Catalog says which tables are published. Required.
	Catalog *catalog.Catalog
	// Messages are the prefixes of logical messages to read. Nil means the default
	// ones; an empty list asks the server for none.
	Messages schemas.Messages
	// MaxMessageBytes bounds the memory of one message of the stream. Of a change
	// whose old and new row are longer together, walhook keeps only small values, and
	// lists it as unrouted. Zero means 64 MiB.
	MaxMessageBytes int
	// SkipUnreadable is the commit of a transaction that the source cannot send and
	// that the reader may skip; 0 for none.
	SkipUnreadable schemas.LSN
}

const defaultName = "walhook"

// slotName is the form of a slot's name (PostgreSQL manual, Replication Slots).
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// slotIdent is the slot's name in a replication command. It is quoted, since the grammar
// would parse names such as "logical" or "1st" otherwise.
func (c Config) slotIdent() string { return `"` + c.Slot + `"` }

func (c Config) WithDefaults() Config {
	if c.Slot == "" {
		c.Slot = defaultName
	}
	if c.Publication == "" {
		c.Publication = defaultName
	}
	return c
}

// Validate lists everything that is wrong with c.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	if c.URL == "" {
		faults = append(faults, errors.New("source is missing: the carrier database's URL, such as postgres://user@host/database"))
	}
	if err := c.Messages.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("messages: %w", err))
	}
	if !slotName.MatchString(c.Slot) {
		faults = append(faults, fmt.Errorf("slot %q: want 1 to 63 of a-z, 0-9 and _", c.Slot))
	}
	if len(c.Publication) > 63 {
		faults = append(faults, fmt.Errorf("publication %q: want at most 63 bytes", c.Publication))
	}
	if c.Catalog == nil {
		faults = append(faults, errors.New("catalog is missing"))
	}
	return errors.Join(faults...)
}

// pinned are the settings of every session on the source. A role or database
// with others (datestyle=German, extra_float_digits=0) would change every
// receiver's payload.
func pinned() []pgsession.Setting {
	return append(pgsession.Common(),
		// Some statements take long, such as creating a slot. The caller's context
		// bounds them.
		pgsession.Setting{Name: "statement_timeout", Value: "0"},
		pgsession.Setting{Name: "idle_in_transaction_session_timeout", Value: "0"},
		pgsession.Setting{Name: "default_transaction_read_only", Value: "off"},
	)
}

const connectTimeout = 10 * time.Second

// parse parses the current URL.
func (c Config) parse() (*pgx.ConnConfig, error) {
	url := c.URL
	if c.URLNow != nil {
		now, err := c.URLNow()
		if err != nil {
			return nil, fmt.Errorf("read the URL of the source: %w", err)
		}
		url = now
	}
	cfg, err := pgx.ParseConfig(url)
	if err == nil {
		_, err = pgsession.Adapt(&cfg.Config)
	}
	if err != nil {
		return nil, &Fault{Problem: "--source is not a PostgreSQL URL", Fix: "want postgres://user@host:5432/database", Err: redact(err)}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	// Of several hosts the primary one. A single host that is a standby may be about to
	// be promoted: until then, what it lacks is no gap.
	cfg.ValidateConnect = pgsession.RequirePrimary
	return cfg, nil
}

func (c Config) connConfig() (*pgx.ConnConfig, error) {
	cfg, err := c.parse()
	if err != nil {
		return nil, err
	}
	pgsession.Use(&cfg.Config, applicationName, pinned())
	prepare := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if err := prepare(ctx, conn); err != nil || ServerEncoding(conn) != SQLASCII {
			return err
		}
		return pgsession.Set(ctx, conn, []pgsession.Setting{{Name: "client_encoding", Value: SQLASCII}})
	}
	return cfg, nil
}

// redact keeps the reason of a parse error and drops the URL, which may hold a password.
func redact(err error) error {
	return fmt.Errorf("%T", err)
}

// connect opens an ordinary session on the source.
func (c Config) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := c.connConfig()
	if err != nil {
		return nil, err
	}
	conn, err := pgsession.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectFault(err)
	}
	return conn, nil
}

// connectReplication opens a session of the replication protocol.
func (c Config) connectReplication(ctx context.Context) (*pgconn.PgConn, error) {
	return c.ConnectStream(ctx, nil)
}

// ConnectStream opens a session of the replication protocol that reads the server's
// bytes through wrap, if that is not nil.
func (c Config) ConnectStream(ctx context.Context, wrap func(io.Reader) io.Reader) (*pgconn.PgConn, error) {
	cfg, err := c.connConfig()
	if err != nil {
		return nil, err
	}
	if wrap != nil {
		cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend { return pgproto3.NewFrontend(wrap(r), w) }
	}
	conn, err := pgsession.ConnectStream(ctx, &cfg.Config)
	if err != nil {
		return nil, connectFault(err)
	}
	return conn, nil
}

// CloseConn closes a session within a second.
func CloseConn(ctx context.Context, conn interface{ Close(context.Context) error }) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// StartStream takes the slot, or returns [ErrSlotInUse]. It names no position: the server
// continues from the confirmed position, which is never ahead of the stored one. The
// reader skips what is stored by its position.
func (c Config) StartStream(ctx context.Context, conn *pgconn.PgConn, noMessages bool) error {
	options := pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		PluginArgs: []string{
			"proto_version '1'",
			"publication_names " + quoteLiteral(schemas.QuoteIdent(c.Publication)),
		},
	}
	if !noMessages {
		options.PluginArgs = append(options.PluginArgs, "messages 'true'")
	}
	err := pglogrepl.StartReplication(ctx, conn, c.slotIdent(), 0, options)
	if sqlState(err) == codeObjectInUse {
		return ErrSlotInUse
	}
	if err != nil {
		return fmt.Errorf("start replication from slot %s: %w", c.Slot, err)
	}
	return nil
}

func quoteLiteral(s string) string {
	quoted := []byte{'\''}
	for _, c := range []byte(s) {
		if c == '\'' {
			quoted = append(quoted, '\'')
		}
		quoted = append(quoted, c)
	}
	return string(append(quoted, '\''))
}
