package bench

import (
	"context"
	"fmt"
	"time"

	"walhook/internal/pgsession"
)

// Aged is the measure aged: the cost of a delivery in outboxes of different ages.
type Aged struct {
	Events  int `json:"events"`  // delivered in between
	Changes int `json:"changes"` // of each measured run

	Fresh    Stage `json:"fresh"`    // a new outbox
	Old      Stage `json:"old"`      // the same outbox after these events
	Retained Stage `json:"retained"` // the same outbox after retention has dropped them
}

// Stage is an age. CPU is of walhook and PostgreSQL.
type Stage struct {
	PerSecond Spread  `json:"deliveries_per_second"`
	CPU       Spread  `json:"cpu_seconds_per_1000"`
	Tallies   []Tally `json:"tallies"`
}

func (b *bench) aged(ctx context.Context) (err error) {
	a := &Aged{Events: b.options.Age, Changes: b.options.Changes}
	w, err := b.newWorld(ctx, b.options.Accounts, b.healthyURL)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	b.step("aged: a fresh outbox")
	if a.Fresh, err = w.stage(ctx); err != nil {
		return err
	}
	b.step("aged: %d events go through", a.Events)
	if err := w.live(ctx, a.Events); err != nil {
		return err
	}
	if a.Old, err = w.stage(ctx); err != nil {
		return err
	}
	b.step("aged: retention")
	if err := w.retire(ctx); err != nil {
		return err
	}
	a.Retained, err = w.stage(ctx)
	b.report.Aged = a
	return err
}

// stage vacuums the tables and measures runs in the present world. The vacuum for the
// earlier events is not a cost of the later ones.
func (w *world) stage(ctx context.Context) (Stage, error) {
	var runs []moved
	var s Stage
	if err := w.vacuum(ctx); err != nil {
		return s, err
	}
	for range w.b.options.Repetitions {
		if err := w.bulk(ctx, w.next, w.b.options.Changes); err != nil {
			return s, err
		}
		run, err := w.move(ctx, w.b.options.Changes)
		if err != nil {
			return s, err
		}
		w.b.step("aged: %s deliveries/s", number(run.total))
		runs = append(runs, run)
		s.Tallies = append(s.Tallies, run.tally)
	}
	s.PerSecond = spreadOf(runs, func(m moved) float64 { return m.total })
	s.CPU = spreadOf(runs, func(m moved) float64 { return m.cost.WalhookCPU + m.cost.PostgresCPU })
	return s, nil
}

func (w *world) vacuum(ctx context.Context) error {
	for _, database := range []string{w.source, w.outbox} {
		conn, err := pgsession.Connect(ctx, database)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "VACUUM (ANALYZE)")
		_ = conn.Close(context.WithoutCancel(ctx))
		if err != nil {
			return fmt.Errorf("vacuum: %w", err)
		}
	}
	return nil
}

// live delivers many events, a part at a time.
func (w *world) live(ctx context.Context, events int) error {
	const part = 500_000
	for left := events; left > 0; left -= part {
		n := min(part, left)
		if err := w.bulk(ctx, w.next, n); err != nil {
			return err
		}
		if _, err := w.move(ctx, n); err != nil {
			return err
		}
		w.b.step("aged: %d to go", left-n)
	}
	return nil
}

const (
	// Retention depends on when a partition's last event was appended, and on the day
	// of attempts. These statements backdate both.
	ageEvents = `UPDATE walhook.event SET appended_at = appended_at - interval '30 days'
		WHERE id IN (SELECT min(id) FROM walhook.event UNION ALL SELECT max(id) FROM walhook.event)`

	ageAttempts = `DO $$
		DECLARE
			_day text := to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD');
			_old date := (now() AT TIME ZONE 'UTC')::date - 30;
		BEGIN
			EXECUTE 'ALTER TABLE walhook.attempt DETACH PARTITION walhook.attempt_' || _day;
			EXECUTE 'ALTER TABLE walhook.attempt_' || _day || ' RENAME TO attempt_' || to_char(_old, 'YYYYMMDD');
			EXECUTE 'UPDATE walhook.attempt_' || to_char(_old, 'YYYYMMDD') || ' SET at = (at::time + date ' || quote_literal(_old) || ') AT TIME ZONE ''UTC''';
			EXECUTE format('ALTER TABLE walhook.attempt ATTACH PARTITION walhook.attempt_%s FOR VALUES FROM (%L) TO (%L)',
				to_char(_old, 'YYYYMMDD'), _old || ' 00:00+00', _old + 1 || ' 00:00+00');
		END $$`

	agedLeft = `SELECT count(*) FROM pg_class WHERE relnamespace = 'walhook'::regnamespace
		AND relname IN ('event_000000', 'attempt_' || to_char((now() AT TIME ZONE 'UTC')::date - 30, 'YYYYMMDD'))`
)

// retire backdates everything in the outbox beyond retention, and waits until walhook
// has dropped it.
func (w *world) retire(ctx context.Context) error {
	outbox, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return err
	}
	defer outbox.Close(context.WithoutCancel(ctx))
	for _, sql := range []string{ageEvents, ageAttempts} {
		if _, err := outbox.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the outbox older: %w", err)
		}
	}
	// The publisher leaves a partition of that age with its next append, and maintenance
	// runs when walhook starts.
	const few = 1000
	if err := w.bulk(ctx, w.next, few); err != nil {
		return err
	}
	if _, err := w.move(ctx, few); err != nil {
		return err
	}
	if err := w.run(); err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Minute); ; {
		if err := w.pass(ctx, 10*pollEvery); err != nil {
			return err
		}
		var left int
		if err := outbox.QueryRow(ctx, agedLeft).Scan(&left); err != nil {
			return err
		}
		if left == 0 {
			return w.stop()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("retention has not dropped %d old partitions%s", left, w.walhook.lastWords())
		}
	}
}
