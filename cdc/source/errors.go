package source

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/doctor"
	"walhook/internal/pgsession"
	"walhook/schemas"
)

// Fault is a problem of the source that walhook cannot fix itself, and what to do about
// it.
type Fault struct {
	Problem string
	Fix     string // a statement or command, in words
	Err     error  // the server's, if any
}

func (f *Fault) Error() string {
	s := f.Problem
	if f.Err != nil {
		s += fmt.Sprintf(" (%v)", f.Err)
	}
	return s + "; " + f.Fix
}

// Unwrap returns the server's error.
func (f *Fault) Unwrap() error { return f.Err }

// checkedFault is a [Fault] with what doctor reports about it.
type checkedFault struct {
	Fault
	check string       // the id of its check; "" if the caller sets it
	steps doctor.Steps // the exact steps of Fix
}

// Unwrap returns the [Fault].
func (f *checkedFault) Unwrap() error { return &f.Fault }

// GapError says that the WAL cannot be continued from the stored position: changes after
// From and before To may be lost. The reader never skips a gap; setup --accept-gap
// starts over with a new snapshot.
type GapError struct {
	From   schemas.LSN // the stored position's end
	To     schemas.LSN // where the source could continue; 0 if unknown
	Reason string
	Slot   string
	// OtherHistory is [schemas.Gap.OtherHistory].
	OtherHistory bool
}

func (e *GapError) Error() string {
	to := "an unknown position"
	if e.To != 0 {
		to = e.To.String()
	}
	return fmt.Sprintf("gap in slot %s: %s; changes between %s and %s may be missing; "+
		"find out why, then run 'walhook setup --accept-gap', which starts over from a fresh snapshot",
		e.Slot, e.Reason, e.From, to)
}

// errNotSetUp says that setup has not been run for this source.
var errNotSetUp = errors.New("the source is not set up")

// ErrSlotInUse says that another session reads the slot.
var ErrSlotInUse = errors.New("the slot is in use")

// SQLSTATEs (PostgreSQL manual, appendix "Error Codes").
const (
	codeUndefinedObject    = "42704" // no such slot or publication
	codeInsufficientRights = "42501"
	codeObjectInUse        = "55006" // slot active elsewhere
	codeLockNotAvailable   = "55P03"
	codeIdleInTransaction  = "25P03" // the session was idle for too long
	codeConfigurationLimit = "53400"
	codeSerialization      = "40001"
	codeInvalidCatalog     = "3D000" // no such database
	codeInvalidAuth        = "28000"
	codeInvalidPassword    = "28P01"
)

func sqlState(err error) string { return pgsession.State(err) }

// IsUnreachable reports whether an error passes: the server is not reachable yet, is
// starting, or the connection was lost. A missing database, a wrong password, a
// certificate that is not accepted or a pooler does not pass.
func IsUnreachable(err error) bool {
	if _, ok := errors.AsType[*Fault](err); ok || pgsession.IsPooler(err) || pgsession.IsCertificate(err) {
		return false
	}
	if code := sqlState(err); code != "" {
		return passes(code)
	}
	if _, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		return false
	}
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	// A server that ended during an answer.
	cut := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	return connecting || network || cut || pgconn.Timeout(err) || pgconn.SafeToRetry(err)
}

// passes reports whether the server's error may pass soon: start and shutdown (class
// 57), connection (08), resources (53), a conflict with another transaction (40), a
// timeout of a lock or a statement.
func passes(code string) bool {
	switch code[:2] {
	case "57", "08", "53", "40":
		return true
	}
	return code == codeLockNotAvailable || code == codeIdleInTransaction
}

// connectFault makes a [Fault] of errors of connecting that an operator must fix.
func connectFault(err error) error {
	err = pgsession.Reason(err)
	if pgsession.IsPooler(err) {
		return poolerFault(err)
	}
	switch sqlState(err) {
	case codeInvalidCatalog:
		return &Fault{Problem: "the source database does not exist", Fix: "create it, or correct --source", Err: err}
	case codeInvalidPassword, codeInvalidAuth:
		return &Fault{Problem: "the source refuses the role or its password",
			Fix: "correct --source, or pg_hba.conf on the server", Err: err}
	case codeInsufficientRights:
		return &Fault{Problem: "the source's role lacks REPLICATION", Fix: "as a superuser: ALTER ROLE … REPLICATION", Err: err}
	case codeUndefinedObject:
		return &Fault{Problem: "the source does not know a parameter of its URL", Fix: "remove it from --source", Err: err}
	}
	if pgsession.IsCertificate(err) {
		return &Fault{Problem: "the connection to the source is not trusted: a certificate was rejected",
			Fix: "renew it, or correct sslmode, sslrootcert, sslcert and sslkey of --source", Err: err}
	}
	return fmt.Errorf("connect to the source: %w", err)
}

// poolerFault says that a connection pooler answers instead of the server.
func poolerFault(err error) *checkedFault {
	var problem string
	said, known := errors.AsType[*pgsession.PoolerError](err)
	pgErr, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case known:
		problem, err = said.Reason, said.Err
	case answered && strings.Contains(pgErr.Message, "replication"):
		problem = pgsession.NoReplication
	default:
		problem = "a connection pooler answers and rejects a parameter of the URL"
	}
	return &checkedFault{
		check: checkRole,
		Fault: Fault{
			Problem: problem,
			Fix:     "give --source the address of the PostgreSQL server itself; see \"Connection poolers\" in docs/OPERATIONS.md",
			Err:     err,
		},
		steps: doctor.Steps{{Kind: doctor.Address, On: onSource, Text: "host=ADDRESS port=PORT", Note: "of the PostgreSQL server itself, not of the pooler in front of it"}},
	}
}
