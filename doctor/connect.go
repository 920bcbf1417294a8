package doctor

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/internal/pgsession"
	"walhook/schemas"
)

// ConnectSteps returns the steps that fix a connection that the server refuses or does
// not answer.
func ConnectSteps(cfg *pgx.ConnConfig, where string, err error) Steps {
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
		fix := CreateDatabase(where, cfg.Database, cfg.User, true)
		fix[0].Note = "or correct --" + where + ", if the name is wrong"
		return fix
	}
	return Steps{{Kind: Shell, Text: fmt.Sprintf("pg_isready -h %s -p %d -d %s", cfg.Host, cfg.Port, cfg.Database),
		Note: "walhook continues by itself once the primary accepts connections; otherwise correct --" + where}}
}
