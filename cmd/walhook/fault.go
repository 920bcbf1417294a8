package main

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc/source"
	"walhook/internal/pgsession"
	"walhook/outbox"
)

// outboxFault describes an error of the outbox's database and says what to do about it.
// It returns other errors unchanged.
func outboxFault(err error) error {
	switch {
	case errors.Is(err, outbox.ErrNotSetUp):
		return fmt.Errorf("%w; run 'walhook setup', or start with --setup", err)
	case errors.Is(err, outbox.ErrTooNew):
		return fmt.Errorf("%w; start the newer walhook that migrated it. To go back instead: stop every walhook, restore the outbox from a backup made before that, then run 'walhook setup' and 'walhook setup --accept-gap' of this version (docs/OPERATIONS.md, Going back)", err)
	}
	if _, ok := errors.AsType[*source.Fault](err); ok {
		return err
	}
	if pgsession.IsPooler(err) {
		return fmt.Errorf("the outbox cannot be used through this connection pooler: %w; %s", err, pgsession.PoolerFix)
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok && pgsession.IsCertificate(err) {
		return fmt.Errorf("the connection to the outbox is not trusted, a certificate was rejected: %w; renew it, or correct sslmode, sslrootcert, sslcert and sslkey of --outbox", err)
	}
	if !ok {
		return err
	}
	switch pgErr.Code {
	case "3D000": // invalid_catalog_name
		return fmt.Errorf("the outbox's database does not exist (%s); create it, or correct --outbox", pgErr.Message)
	case "28000", "28P01": // invalid_authorization_specification, invalid_password
		return fmt.Errorf("the outbox's database refuses the role or its password (%s); correct --outbox, or pg_hba.conf on its server", pgErr.Message)
	case "42501": // insufficient_privilege
		return fmt.Errorf("the outbox's role lacks a right (%s); as the database's owner: GRANT CREATE ON DATABASE … TO the role", pgErr.Message)
	}
	return err
}
