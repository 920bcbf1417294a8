package cdc

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
)

// applicationName is what the server knows the reader's sessions by.
const applicationName = "walhook"

const (
	synchronousNamesSQL = `SELECT pg_catalog.current_setting('synchronous_standby_names')`

	// The physical standbys, which alone can be meant.
	standbyNamesSQL = `
		SELECT DISTINCT application_name FROM pg_catalog.pg_stat_replication r
		WHERE application_name NOT IN ('', $1)
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
		ORDER BY 1`
)

var standbyName = regexp.MustCompile(`"(?:[^"]|"")*"|[^\s,()"]+`)

// takesForStandby says whether a value of synchronous_standby_names has the
// server take walhook for a synchronous standby (PostgreSQL manual,
// synchronous_standby_names: "*" is every name, and case does not count).
func takesForStandby(names string) bool {
	for _, name := range standbyName.FindAllString(names, -1) {
		if strings.HasPrefix(name, `"`) {
			name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
		}
		if name == "*" || strings.EqualFold(name, applicationName) {
			return true
		}
	}
	return false
}

// synchronousFault says in words what is wrong with synchronous_standby_names;
// "" for nothing.
func synchronousFault(names string) string {
	if !takesForStandby(names) {
		return ""
	}
	return fmt.Sprintf("synchronous_standby_names is %q, which names walhook too: where no standby answers, "+
		"the source's commits wait for what walhook has stored, and may be on no standby", names)
}

// synchronousNames is the source's synchronous_standby_names.
func (r *catalogReader) synchronousNames(ctx context.Context) (names string, err error) {
	if err = r.conn.QueryRow(ctx, synchronousNamesSQL).Scan(&names); err != nil {
		err = fmt.Errorf("read synchronous_standby_names: %w", err)
	}
	return names, err
}

// synchronousStandby looks whether walhook is named as a synchronous standby.
func (e *examination) synchronousStandby(ctx context.Context) {
	names := e.s.Value("synchronous_standby_names")
	fault := synchronousFault(names)
	if fault == "" {
		e.r.OK(checkSynchronous, "no commit of the source waits for walhook")
		return
	}
	rows, err := e.s.Query(ctx, standbyNamesSQL, applicationName)
	var standbys []string
	if err == nil {
		standbys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkSynchronous)
		return
	}
	value, note := "", "no standby is connected: name yours, as in 'FIRST 1 (standby1)'"
	if len(standbys) > 0 {
		for i, name := range standbys {
			standbys[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		}
		value, note = "FIRST 1 ("+strings.Join(standbys, ", ")+")", "these are the standbys that are connected"
	}
	fix := doctor.Configure(source, "synchronous_standby_names", value, false)
	fix[0].Note = note
	e.r.Fail(checkSynchronous, fix, "%s", fault)
}
