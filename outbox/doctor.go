package outbox

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/doctor"
	"walhook/internal/pgsession"
	"walhook/migrations"
	"walhook/schemas"
)

// here is how findings and their steps name the database.
const here = "outbox"

// The checks of an outbox, by the ids that do not change.
const (
	checkReachable  = "outbox.reachable"
	checkSettings   = "outbox.settings"
	checkDurability = "outbox.durability"
	checkRights     = "outbox.rights"
	checkMigrations = "outbox.migrations"
	checkPartitions = "outbox.partitions"
	checkGaps       = "outbox.gaps"
	checkCatalog    = "outbox.catalog"
	checkResyncs    = "outbox.resyncs"
	checkSenders    = "outbox.senders"
	checkShards     = "outbox.shards"
	checkSecrets    = "outbox.secrets"
	checkAside      = "outbox.set_aside"
	checkOwnFaults  = "outbox.held"
	checkUnrouted   = "outbox.unrouted"
	checkDeadRows   = "outbox.dead_rows"
)

// Checks names every check of [Examine], in its order.
func Checks() []string {
	ids := []string{checkReachable}
	ids = append(ids, doctor.ServerChecks(here)...)
	ids = append(ids, checkSettings, checkDurability, checkRights, checkMigrations, checkPartitions, checkGaps, checkCatalog, checkResyncs,
		checkSenders, checkShards, checkSecrets, checkAside, checkOwnFaults, checkUnrouted, checkDeadRows)
	return append(ids, doctor.TransactionChecks(here)...)
}

// contentChecks are those of what a migrated outbox holds.
func contentChecks() []string {
	return []string{checkPartitions, checkGaps, checkCatalog, checkResyncs, checkSenders, checkShards, checkSecrets, checkAside, checkOwnFaults, checkUnrouted, checkDeadRows}
}

// examination is what is known of an outbox while it is looked at.
type examination struct {
	cfg Config
	s   *doctor.Session
	r   *doctor.Report
}

// Examine looks for whatever keeps walhook from storing and delivering, or soon
// will: a finding for each of [Checks]. It writes nothing and waits for no lock
// for long.
func Examine(ctx context.Context, cfg Config, o doctor.Options) []doctor.Finding {
	o = o.WithDefaults()
	e := &examination{cfg: cfg, r: doctor.NewReport(Checks()...)}
	if e.open(ctx) {
		defer e.s.Close(ctx)
		e.s.Server(ctx, e.r, o)
		e.lookAtSettings()
		if e.lookAtSchema(ctx) {
			e.lookAtContent(ctx)
		}
		e.s.Transactions(ctx, e.r, o, false, "vacuum cannot remove dead rows of the outbox")
	}
	return e.r.Findings()
}

func (e *examination) open(ctx context.Context) bool {
	conn, err := e.parse()
	if err != nil { // it may quote a password
		e.r.Fail(checkReachable, nil, "--outbox is not a PostgreSQL URL")
	} else if e.s, err = doctor.Open(ctx, conn, here); err != nil {
		e.r.Fail(checkReachable, doctor.ConnectSteps(ctx, conn, here, err), "connect to the outbox: %v", err)
	}
	if err != nil {
		e.r.SkipRest("not checked: the outbox is not reachable")
		return false
	}
	e.r.OK(checkReachable, "database %s at %s, as role %s", e.s.Database, e.s.PgConn().Conn().RemoteAddr(), e.s.Role)
	return true
}

func (e *examination) parse() (*pgx.ConnConfig, error) {
	url, err := e.cfg.text()
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.ParseConfig(url)
	if err == nil {
		_, err = pgsession.Adapt(&pool.ConnConfig.Config)
	}
	if err != nil {
		return nil, err
	}
	return pool.ConnConfig, nil
}

// lookAtSettings looks at what would break a promise of the outbox, and that
// its own sessions do not set.
func (e *examination) lookAtSettings() {
	for _, must := range []struct{ name, value, harm string }{
		{"default_transaction_read_only", "off", "nothing can be stored"},
	} {
		if is := e.s.Value(must.name); is != "" && is != must.value {
			e.r.Fail(checkSettings, e.s.Restore(must.name, must.value), "%s is %q: %s", must.name, is, must.harm)
		}
	}
	if enc := e.s.PgConn().ParameterStatus("server_encoding"); enc != "UTF8" {
		e.r.Warn(checkSettings, doctor.Steps{{Kind: doctor.SQL, On: here, Text: "CREATE DATABASE walhook ENCODING 'UTF8' TEMPLATE template0",
			Note: "and use it for --outbox"}},
			"the outbox's database has the encoding %s: walhook stores escaped what it cannot hold of keys, texts and URLs, and an account whose id it cannot hold gets nothing", enc)
	}
	e.r.OK(checkSettings, "the role's transactions are read-write")
	for _, name := range volatile(e.s) {
		e.r.Fail(checkDurability, doctor.Configure(here, name, "on", false),
			"%s is off: after a power failure changes that the source considers stored may be lost", name)
	}
	e.r.OK(checkDurability, "fsync and full_page_writes are on")
}

// volatile returns the settings of the server because of which a power failure loses what
// it stored.
func volatile(s *doctor.Session) (names []string) {
	for _, name := range []string{"fsync", "full_page_writes"} {
		if s.Value(name) == "off" {
			names = append(names, name)
		}
	}
	return names
}

const (
	schemaSQL = `
		SELECT pg_is_in_recovery(), has_database_privilege(current_database(), 'CREATE'),
			coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'walhook'), true),
			EXISTS (SELECT FROM pg_namespace WHERE nspname = 'walhook'),
			to_regclass('` + migrations.VersionTable + `') IS NOT NULL`

	foreignTableSQL = `
		SELECT c.relname::text, pg_get_userbyid(c.relowner)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'walhook' AND c.relkind IN ('r', 'p') AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1`
)

// lookAtSchema says whether the outbox is there and can be worked with.
func (e *examination) lookAtSchema(ctx context.Context) bool {
	var standby, create, owned, exists, migrated bool
	if err := e.s.QueryRow(ctx, schemaSQL).Scan(&standby, &create, &owned, &exists, &migrated); err != nil {
		e.s.Unseen(e.r, err, checkRights)
		e.r.Skip("not checked", contentChecks()...)
		return false
	}
	role := schemas.QuoteIdent(e.s.Role)
	if standby {
		e.r.Fail(checkSettings, doctor.Steps{{Kind: doctor.Address, On: here, Text: "target_session_attrs=read-write", Note: "with all hosts in the URL"}},
			"the server is a standby: nothing can be stored")
	}
	switch {
	case !exists && !create:
		e.r.Fail(checkRights, grantCreate(e.s.Database, e.s.Role),
			"role %s may not create the schema walhook in database %s", role, e.s.Database)
	case !owned:
		e.r.Fail(checkRights, ownSchema(e.s.Role),
			"schema walhook does not belong to %s, which therefore cannot create partitions", role)
	default:
		e.foreignTables(ctx, role)
	}
	e.r.OK(checkRights, "role %s owns the outbox, or may create it", role)
	if !migrated {
		e.r.Skip("there is no outbox yet: 'walhook setup' creates it", append(contentChecks(), checkMigrations)...)
		return false
	}
	return e.lookAtVersion(ctx)
}

// foreignTables finds tables that maintenance could not drop parts of.
func (e *examination) foreignTables(ctx context.Context, role string) {
	rows, err := e.s.Query(ctx, foreignTableSQL)
	var name, owner string
	var fix doctor.Steps
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&name, &owner}, func() error {
			fix = append(fix, ownTable(name, e.s.Role)...)
			return nil
		})
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkRights)
	} else if len(fix) > 0 {
		e.r.Fail(checkRights, fix, "%s of the outbox %s to another than %s, such as walhook.%s to %s", doctor.Count(len(fix), "table"), doctor.Choose(len(fix), "belongs", "belong"), role, name, owner)
	}
}

// lookAtVersion says whether this binary fits the outbox.
func (e *examination) lookAtVersion(ctx context.Context) bool {
	var version int32
	latest, err := latestVersion()
	if err == nil {
		err = e.s.QueryRow(ctx, "SELECT version FROM "+migrations.VersionTable).Scan(&version)
	}
	switch {
	case err != nil:
		e.s.Unseen(e.r, err, checkMigrations)
	case version < latest:
		e.r.Fail(checkMigrations, doctor.Run("walhook setup"), "the outbox is at version %d, this walhook needs %d", version, latest)
	case version > latest:
		e.r.Fail(checkMigrations, doctor.Steps{{Kind: doctor.Shell, Text: "install the newer walhook that migrated it", Note: "migrations never go back; with a backup from before: docs/OPERATIONS.md, Going back"}},
			"the outbox is at version %d, this walhook supports up to %d", version, latest)
	default:
		e.r.OK(checkMigrations, "version %d", version)
		return true
	}
	e.r.Skip("not checked: "+checkMigrations, contentChecks()...)
	return false
}
