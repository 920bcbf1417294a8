package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// The sessions with an old snapshot or transaction. Without pg_monitor a role sees
	// no time stamps of other roles' sessions, only how many transactions their
	// snapshot is behind.
	oldTransactionsSQL = `
		SELECT pid, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''),
			coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8, coalesce(age(backend_xmin), 0)
		FROM pg_stat_activity
		WHERE pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker' AND ($2 OR datname = current_database())
			AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)
			AND coalesce(xact_start < clock_timestamp() - $1::interval, age(backend_xmin) > 1000000)
		ORDER BY xact_start NULLS LAST LIMIT 5`

	preparedSQL = `
		SELECT gid, owner::text, database::text, extract(epoch FROM clock_timestamp() - prepared)::float8
		FROM pg_prepared_xacts
		WHERE ($2 OR database = current_database()) AND prepared < clock_timestamp() - $1::interval
		ORDER BY prepared LIMIT 5`
)

// TransactionChecks are the checks of [Session.Transactions].
func TransactionChecks(where string) []string {
	return []string{where + ".transactions", where + ".prepared"}
}

// Transactions looks for transactions that are open for too long, in this database or
// on the whole server. harm says what they do to it.
func (s *Session) Transactions(ctx context.Context, r *Report, o Options, wholeServer bool, harm string) {
	if err := s.running(ctx, r, o.OldTransaction, wholeServer, harm); err != nil {
		s.Unseen(r, err, s.ID("transactions"))
	}
	if err := s.prepared(ctx, r, o.OldTransaction, wholeServer, harm); err != nil {
		s.Unseen(r, err, s.ID("prepared"))
	}
}

func (s *Session) running(ctx context.Context, r *Report, old time.Duration, wholeServer bool, harm string) error {
	id := s.ID("transactions")
	rows, err := s.Query(ctx, oldTransactionsSQL, old, wholeServer)
	if err != nil {
		return err
	}
	var pid int
	var user, application, state string
	var seconds float64
	var behind int64
	_, err = pgx.ForEachRow(rows, []any{&pid, &user, &application, &state, &seconds, &behind}, func() error {
		age := "unknown age"
		if seconds > 0 {
			age = "open for " + since(seconds)
		}
		r.Warn(id, Steps{{Kind: SQL, On: s.Where, Text: fmt.Sprintf("SELECT pg_catalog.pg_terminate_backend(%d)", pid),
			Needs: "membership in its role, or pg_signal_backend", Note: "this rolls its transaction back; first find out who runs it"}},
			"pid %d (role %s, application %q, %s), %s, its snapshot is %d transactions old: %s", pid, user, application, state, age, behind, harm)
		return nil
	})
	if err != nil {
		return err
	}
	var all bool
	if err := s.QueryRow(ctx, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')").Scan(&all); err != nil {
		return err
	}
	if all {
		r.OK(id, "no transaction is open for more than %s", old)
	} else {
		r.OK(id, "no transaction of role %[1]s is open for more than %[2]s, and no other transaction's snapshot is a million transactions old; GRANT pg_monitor TO %[1]s shows the age of the others", s.Role, old)
	}
	return nil
}

func (s *Session) prepared(ctx context.Context, r *Report, old time.Duration, wholeServer bool, harm string) error {
	id := s.ID("prepared")
	rows, err := s.Query(ctx, preparedSQL, old, wholeServer)
	if err != nil {
		return err
	}
	var gid, owner, database string
	var seconds float64
	_, err = pgx.ForEachRow(rows, []any{&gid, &owner, &database, &seconds}, func() error {
		r.Warn(id, Steps{{Kind: SQL, On: s.Where, Text: "ROLLBACK PREPARED " + QuoteLiteral(gid),
			Needs: "its owner or a superuser, in its database",
			Note:  "or COMMIT PREPARED; the transaction's coordinator knows which"}},
			"prepared transaction %q of %s in database %s has waited for %s: %s", gid, owner, database, since(seconds), harm)
		return nil
	})
	r.OK(id, "no prepared transaction has waited for more than %s", old)
	return err
}

func since(seconds float64) string {
	return (time.Duration(seconds * float64(time.Second))).Round(time.Second).String()
}
