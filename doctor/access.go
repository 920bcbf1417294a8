package doctor

import (
	"fmt"

	"walhook/schemas"
)

// CreateRole returns the step that creates a role of walhook. It sets no password: a
// statement with one would reach the server's log.
func CreateRole(where, role string, replication bool) Steps {
	attributes := "LOGIN"
	if replication {
		attributes += " REPLICATION"
	}
	return Steps{{Kind: SQL, On: where, Needs: Superuser, Text: fmt.Sprintf("CREATE ROLE %s %s", schemas.QuoteIdent(role), attributes),
		Unless: fmt.Sprintf("EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s)", QuoteLiteral(role))}}
}

// AllowLogin returns the step after which a role may connect.
func AllowLogin(where, role string) Steps {
	return Ask(where, Superuser, fmt.Sprintf("ALTER ROLE %s LOGIN", schemas.QuoteIdent(role)))
}

// AllowReplication returns the step after which a role may use the replication protocol.
func AllowReplication(where, role string) Steps {
	return Steps{{Kind: SQL, On: where, Needs: Superuser, Text: fmt.Sprintf("ALTER ROLE %s REPLICATION", schemas.QuoteIdent(role)),
		Note: "hosted services grant an equivalent, such as GRANT rds_replication TO the role"}}
}

// CreateDatabase returns the step that creates a database which belongs to walhook's role:
// only an owner needs no further right. encoded says that the server's databases are UTF8
// by themselves.
func CreateDatabase(where, database, owner string, encoded bool) Steps {
	sql := fmt.Sprintf("CREATE DATABASE %s OWNER %s", schemas.QuoteIdent(database), schemas.QuoteIdent(owner))
	if !encoded {
		sql += " ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
	}
	return Steps{{Kind: SQL, On: where, Needs: Superuser, Text: sql,
		Unless: fmt.Sprintf("EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s)", QuoteLiteral(database))}}
}

// GrantConnect returns the step after which a role may connect to a database.
func GrantConnect(where, database, role string) Steps {
	return Ask(where, "ownership of the database", fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s", schemas.QuoteIdent(database), schemas.QuoteIdent(role)))
}
