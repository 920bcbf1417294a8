package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/outbox/admin"
)

const statusLong = `Shows position and lag, what the slot costs the source, throughput, backlog,
lanes by state, the ten worst endpoints with their reason, disabled endpoints,
dead letters, the publisher, the senders and their shards, and gaps.

It reads the databases and asks no process, so it works also while walhook is
down. It counts nothing that can be large, so it costs little. It names a
database that does not answer and shows the rest; the exit status is then 1.
Without --source it leaves the slot out. It shows URLs without user name,
password and query.

--watch repeats it every few seconds, until you interrupt it: on a terminal in
one place, elsewhere below each other; with --json it prints one object per
line.`

func newStatusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show lag, backlog, throughput, lanes and the worst endpoints",
		Long:  statusLong,
		Example: `  walhook status --source postgres://walhook@db/carrier --outbox postgres://walhook@db/walhook
  walhook status --outbox postgres://walhook@db/walhook --watch
  walhook status --source postgres://walhook@db/carrier --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			for _, warning := range s.warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "walhook:", warning)
			}
			if o.every < time.Second || o.every > time.Hour {
				return usage(fmt.Errorf("--every %s: want 1s to 1h", o.every))
			}
			return o.run(cmd.Context(), s, cmd.OutOrStdout())
		},
	}
	addSettings(cmd, "source", "outbox", "slot")
	optional(cmd, "source")
	flags := cmd.Flags()
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.BoolVar(&o.watch, "watch", false, "repeat the output")
	flags.DurationVar(&o.every, "every", 2*time.Second, "interval of --watch")
	return cmd
}

type statusOptions struct {
	json, watch bool
	every       time.Duration
}

// run shows the status once, or repeatedly until ctx ends.
func (o statusOptions) run(ctx context.Context, s settings, out io.Writer) error {
	store, err := outbox.Open(ctx, s.outboxConfig(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return usage(err)
	}
	defer store.Close()
	show := func() error {
		view := readStatus(ctx, s, store)
		if ctx.Err() != nil {
			return nil
		}
		if err := o.write(out, view); err != nil {
			return err
		}
		return view.fault()
	}
	if !o.watch {
		return show()
	}
	if !o.json {
		var board statusBoard
		if screen := openScreen(out, true, board.draw); screen != nil {
			return o.watchOn(ctx, screen, &board, out, func() statusView { return readStatus(ctx, s, store) })
		}
	}
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for {
		var lost *unreachableError
		if err := show(); err != nil && !errors.As(err, &lost) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// statusBoard holds the latest status for a screen.
type statusBoard struct{ lines atomic.Pointer[[]string] }

func (b *statusBoard) draw(width, height int) string {
	lines := []string{"reading the status …"}
	if latest := b.lines.Load(); latest != nil {
		lines = slices.Clone(*latest)
	}
	return fit(lines, width, height-1) + "\n" + styleFaint.Styled(ansi.Truncate("Ctrl-C ends it", width, "…"))
}

// watchOn shows the status on a screen until ctx ends, and then leaves the latest one in
// the terminal.
func (o statusOptions) watchOn(ctx context.Context, screen *screen, board *statusBoard, out io.Writer, read func() statusView) error {
	var text strings.Builder
	for ctx.Err() == nil {
		view := read()
		if ctx.Err() != nil {
			break
		}
		text.Reset()
		if err := view.write(&text); err != nil {
			return errors.Join(err, screen.close())
		}
		lines := strings.Split(strings.TrimRight(text.String(), "\n"), "\n")
		for i := range lines {
			lines[i] = printable(lines[i])
		}
		board.lines.Store(&lines)
		select {
		case <-ctx.Done():
		case <-time.After(o.every):
		}
	}
	err := screen.close()
	if _, printed := io.WriteString(out, text.String()); err == nil {
		err = printed
	}
	return err
}

func (o statusOptions) write(out io.Writer, view statusView) error {
	if o.json {
		return view.writeJSON(out, o.watch)
	}
	return view.write(out)
}

// statusTimeout bounds the time of one database's answers.
const statusTimeout = 20 * time.Second

// statusView is the status of source and outbox at one moment.
type statusView struct {
	slot      string
	source    *source.SlotReport // nil if there is no source or it did not answer
	sourceErr error
	asked     bool // --source is given
	outbox    *admin.Status
	outboxErr error
}

func readStatus(ctx context.Context, s settings, store *outbox.Store) statusView {
	view := statusView{slot: s.Slot, asked: s.Source != ""}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if !view.asked {
			return
		}
		ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, errors.New("timed out"))
		defer cancel()
		report, err := source.ReportSlot(ctx, s.cdcConfig())
		if view.sourceErr = err; err == nil {
			view.source = &report
		}
	}()
	asking, cancel := context.WithTimeoutCause(ctx, statusTimeout, errors.New("timed out"))
	defer cancel()
	err := store.CheckMigrated(asking)
	var status admin.Status
	if err == nil {
		status, err = admin.New(store).Status(asking)
	}
	if view.outboxErr = outboxFault(err); err == nil {
		view.outbox = &status
	}
	<-answered
	return view
}

// unreachableError names the databases that did not answer.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// fault returns the error because of which a part is missing; nil for none.
func (v *statusView) fault() error {
	var faults []error
	if v.sourceErr != nil {
		faults = append(faults, fmt.Errorf("query the source: %w", v.sourceErr))
	}
	if v.outboxErr != nil {
		faults = append(faults, fmt.Errorf("query the outbox: %w", v.outboxErr))
	}
	if len(faults) == 0 {
		return nil
	}
	return &unreachableError{errors.Join(faults...)}
}

// lag returns how far the stored position is behind the end of the source's WAL; known
// says whether both databases answered. It ignores the slot's confirmed_flush_lsn,
// because another program may confirm what walhook never stored.
func (v *statusView) lag() (bytes uint64, seconds float64, known bool) {
	if v.source == nil || v.outbox == nil || v.outbox.Publisher.Flush == 0 {
		return 0, 0, false
	}
	stored := v.outbox.Publisher.Flush
	if v.source.WALEnd <= stored {
		return 0, 0, true
	}
	var behind time.Duration
	if v.source.Active && !v.source.Reader.Foreign() {
		behind = v.source.FlushLag
	}
	// A reader that stores nothing confirms nothing, so its own lag does not grow. The
	// time since it last stored something does.
	behind = max(behind, v.outbox.At.Sub(v.outbox.Publisher.StoredAt))
	if behind > idleAdvance {
		seconds = behind.Seconds()
	}
	return uint64(v.source.WALEnd - stored), seconds, true
}

// idleAdvance is the longest time between two idle advances, with some reserve. Until
// then the distance is not lag: it is WAL without changes for walhook.
const idleAdvance = 15 * time.Second
