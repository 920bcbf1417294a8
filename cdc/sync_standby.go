package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"walhook/doctor"
)

const (
	// standbyEvery is how often the reader looks whether commits wait for it.
	standbyEvery = 500 * time.Millisecond

	// candidateEvery bounds how often an idle advance is stored while commits
	// may wait for it. Where the outbox is on the source's server, each one
	// makes the next.
	candidateEvery = 20 * time.Millisecond

	// holdsAtMost is how long commits may wait for a store that does not answer.
	holdsAtMost = 3 * time.Second
)

// errHolds ends a connection that commits on the source wait for.
var errHolds = errors.New("the outbox stores nothing, and commits on the source wait for walhook as a synchronous standby: " +
	"disconnected until the outbox answers; 'walhook doctor' prints the fix of synchronous_standby_names")

// syncNames is synchronous_standby_names, taken apart.
type syncNames struct {
	value  string
	method string // FIRST or ANY
	count  int
	names  []string
}

// parseSyncNames reads what the server has accepted (PostgreSQL manual,
// synchronous_standby_names).
func parseSyncNames(value string) syncNames {
	s := syncNames{value: value, method: "FIRST", count: 1}
	list := strings.TrimSpace(value)
	if open := strings.IndexByte(list, '('); open >= 0 && !strings.Contains(list[:open], `"`) {
		for word := range strings.FieldsSeq(list[:open]) {
			if n, err := strconv.Atoi(word); err == nil {
				s.count = n
			} else if strings.EqualFold(word, "any") {
				s.method = "ANY"
			} else if rest, ok := strings.CutPrefix(strings.ToUpper(word), "ANY"); ok {
				s.method = "ANY"
				if n, err := strconv.Atoi(rest); err == nil {
					s.count = n
				}
			}
		}
		list = strings.TrimSuffix(strings.TrimSpace(list[open+1:]), ")")
	}
	var name strings.Builder
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"' && quoted && i+1 < len(list) && list[i+1] == '"':
			name.WriteByte(c)
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			s.names = append(s.names, name.String())
			name.Reset()
		case quoted || !strings.ContainsRune(" \t\r\n\f\v", rune(c)):
			name.WriteByte(c)
		}
	}
	if name.Len() > 0 {
		s.names = append(s.names, name.String())
	}
	return s
}

// takes says whether a WAL sender of that name may be a synchronous standby.
func (s syncNames) takes(name string) bool {
	return slices.ContainsFunc(s.names, func(n string) bool { return n == "*" || strings.EqualFold(n, name) })
}

// without is the value that leaves walhook out: with the standbys that it names,
// and otherwise those that are connected.
func (s syncNames) without(connected []string) string {
	names := slices.DeleteFunc(slices.Clone(s.names), func(n string) bool { return n == "*" || strings.EqualFold(n, applicationName) })
	if len(names) == 0 || slices.Contains(s.names, "*") {
		for _, n := range connected {
			if !slices.ContainsFunc(names, func(have string) bool { return strings.EqualFold(have, n) }) {
				names = append(names, n)
			}
		}
	}
	if len(names) == 0 {
		names = []string{placeholderStandby}
	}
	for i, n := range names {
		names[i] = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
	}
	return fmt.Sprintf("%s %d (%s)", s.method, max(1, min(s.count, len(names))), strings.Join(names, ", "))
}

// placeholderStandby stands for standbys that are not known.
const placeholderStandby = "name_of_a_standby"

const (
	// A role without pg_read_all_stats sees neither state nor name.
	syncStandbySQL = `
		SELECT current_setting('synchronous_standby_names'), coalesce((SELECT r.sync_state FROM pg_replication_slots s
			JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1), '')`

	standbysSQL = `
		SELECT DISTINCT r.application_name FROM pg_stat_replication r
		LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
		WHERE coalesce(s.slot_type, 'physical') = 'physical' AND lower(r.application_name) <> lower($1) AND r.application_name <> '' AND r.state <> 'backup'
		ORDER BY 1`
)

// syncStandby is what the server makes of our WAL sender.
type syncStandby struct {
	syncNames
	state   string   // its sync_state; "" where there is none, or it may not be seen
	standby []string // the physical standbys that are connected
}

// candidate says whether commits may wait for walhook.
func (s syncStandby) candidate() bool {
	return s.takes(applicationName) || s.state == "sync" || s.state == "quorum" || s.state == "potential"
}

func readSyncStandby(ctx context.Context, q querier, slot string) (s syncStandby, err error) {
	var value string
	if err := q.QueryRow(ctx, syncStandbySQL, slot).Scan(&value, &s.state); err != nil {
		return s, fmt.Errorf("look at synchronous_standby_names: %w", err)
	}
	if s.syncNames = parseSyncNames(value); !s.candidate() {
		return s, nil
	}
	err = q.QueryRow(ctx, "SELECT coalesce(array_agg(name), '{}') FROM ("+standbysSQL+") AS standby (name)", applicationName).Scan(&s.standby)
	if err != nil {
		return s, fmt.Errorf("look at the source's standbys: %w", err)
	}
	return s, nil
}

// problem says what is wrong.
func (s syncStandby) problem() string {
	state := ""
	if s.state != "" {
		state = fmt.Sprintf(" (sync_state %s)", s.state)
	}
	return fmt.Sprintf("synchronous_standby_names is %s: the server takes walhook for a synchronous standby%s, so that each commit may wait for it",
		doctor.QuoteLiteral(s.value), state)
}

// steps name the real standbys.
func (s syncStandby) steps() doctor.Steps {
	steps := doctor.Configure(source, "synchronous_standby_names", s.without(s.standby), false)
	steps[0].Note = "check that the list holds your standbys, by application_name, and not walhook; where there are none, set it to ''"
	return steps
}

// fix is steps in one line, for a log.
func (s syncStandby) fix() string {
	steps := s.steps()
	return fmt.Sprintf("as a superuser: %s; %s", steps[0].Text, steps[1].Text)
}

// lookAtSyncStandby is doctor's check.
func (e *examination) lookAtSyncStandby(ctx context.Context) error {
	s, err := readSyncStandby(ctx, e.s, e.cfg.Slot)
	switch {
	case err != nil:
	case s.candidate():
		e.r.Fail(checkSyncStandby, s.steps(), "%s", s.problem())
	case s.value == "":
		e.r.OK(checkSyncStandby, "there are no synchronous standbys")
	default:
		e.r.OK(checkSyncStandby, "%s leaves walhook out", s.value)
	}
	return err
}

// watchStandby looks whether commits on the source wait for this reader, until
// ctx ends or they have waited for too long. It has a session of its own: the
// server reloads its settings at any time.
func (r *Reader) watchStandby(ctx context.Context, s *stream) error {
	source, err := newCatalogReader(ctx, r.cfg)
	if err != nil {
		return err
	}
	defer source.close(ctx)
	for {
		now, err := readSyncStandby(ctx, source.conn, r.cfg.Slot)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		candidate := now.candidate()
		if s.candidate.Swap(candidate); candidate && r.warnedSync != now.value {
			r.log.Warn(now.problem()+"; leave it out", zap.String("fix", now.fix()))
		}
		r.warnedSync = ""
		if candidate {
			r.warnedSync = now.value
		}
		if since := s.storing.Load(); candidate && since != 0 && time.Since(time.Unix(0, since)) > holdsAtMost {
			return errHolds
		}
		if !sleep(ctx, standbyEvery) {
			return context.Cause(ctx)
		}
	}
}
