package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/internal/pgsession"
	"walhook/schemas"
)

// ConnectSteps returns the steps that fix a connection that the server refuses or does
// not answer.
func ConnectSteps(ctx context.Context, cfg *pgx.ConnConfig, where string, err error) Steps {
	if pgsession.IsPooler(err) {
		return Steps{{Kind: Address, On: where, Text: "host=ADDRESS port=PORT", Note: pgsession.PoolerFix}}
	}
	if pgsession.IsCertificate(err) {
		return Steps{{Kind: Address, On: where, Text: "sslmode=verify-full", Note: "with sslrootcert=FILE, the authority that signed the server's certificate; " +
			"renew an expired certificate: the server's, or your own in sslcert and sslkey"}}
	}
	role, database := schemas.QuoteIdent(cfg.User), schemas.QuoteIdent(cfg.Database)
	code := ""
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		code = refused.Code
	}
	switch code {
	case "42501": // insufficient_privilege
		return GrantConnect(where, cfg.Database, cfg.User)
	case "28000": // invalid_authorization_specification
		fix := AllowLogin(where, cfg.User)
		fix[0].Note = fmt.Sprintf("or a line for it in pg_hba.conf, such as: host %s %s ADDRESS/32 scram-sha-256", database, role)
		return fix
	case "28P01": // invalid_password
		return Steps{{Kind: Setting, On: where, Text: fmt.Sprintf("--%s=postgres://%s:PASSWORD@%s:%d/%s", where, cfg.User, cfg.Host, cfg.Port, cfg.Database),
			Note: "with the role's password; write special characters as %40 (for @) and so on"}}
	case "53300": // too_many_connections
		return Steps{{Kind: SQL, On: where, Needs: Superuser, Text: fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT -1", role),
			Note: "or raise max_connections and restart the server"}}
	case "3D000": // invalid_catalog_name
		return otherDatabase(ctx, cfg, where)
	}
	if pgsession.IsWithoutTLS(err) {
		return Steps{{Kind: SQL, On: where, Needs: Superuser, Text: "ALTER SYSTEM SET ssl = 'on'",
			Note: "the server needs a certificate first, in ssl_cert_file and ssl_key_file; then: SELECT pg_catalog.pg_reload_conf(). " +
				"Or, where the network is safe without TLS, sslmode=disable in the URL of --" + where}}
	}
	return Steps{{Kind: Shell, Text: fmt.Sprintf("pg_isready -h %s -p %d -d %s", cfg.Host, cfg.Port, cfg.Database),
		Note: "walhook continues by itself once the primary accepts connections; otherwise correct --" + where}}
}

// databasesSQL lists the databases that somebody may have meant.
const databasesSQL = `SELECT datname::pg_catalog.text FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1`

// otherDatabase returns the steps for a database that does not exist. The name may be
// mistyped: for a source, one that exists comes first. To see which do, it connects to one
// of the databases that every server has, if the role may.
func otherDatabase(ctx context.Context, cfg *pgx.ConnConfig, where string) Steps {
	create := CreateDatabase(where, cfg.Database, cfg.User, true)
	create[0].Note = "or correct --" + where + ", if the name is wrong"
	var names []string
	for _, maintenance := range []string{"postgres", "template1"} {
		other := cfg.Copy()
		other.Database = maintenance
		conn, err := pgsession.ConnectConfig(ctx, other)
		if err != nil {
			continue
		}
		rows, _ := conn.Query(ctx, databasesSQL) // rows have its error
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		pgsession.Close(ctx, conn)
		if err == nil {
			break
		}
	}
	near := schemas.Nearest(cfg.Database, names)
	switch {
	case where == outbox && near != "":
		create[0].Note = "or correct --" + where + ": did you mean " + schemas.QuoteIdent(near) + "?"
	case where == outbox || len(names) == 0:
	case near != "":
		return Steps{{Kind: Address, On: where, Text: "dbname=" + near, Note: "did you mean that one? The server has " + List(quoted(names), ListMost)}}
	default:
		return Steps{{Kind: Address, On: where, Text: "dbname=NAME", Note: "the server has " + List(quoted(names), ListMost)}}
	}
	return create
}

// outbox is where a database may be missing because nobody has created it yet. That of the
// source exists, under some name.
const outbox = "outbox"

func quoted(names []string) []string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = schemas.QuoteIdent(name)
	}
	return list
}
