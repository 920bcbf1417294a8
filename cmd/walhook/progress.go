package main

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// progress shows how far something is: in one line of a terminal, otherwise by a line now
// and then.
type progress struct {
	what   string
	out    io.Writer
	screen *screen
	plain  bool
	next   time.Time // of the next line
	done   atomic.Int64
	total  atomic.Int64 // 0 where it is not known
}

// progressEvery is how often a line is printed where no line can change.
const progressEvery = 10 * time.Second

func newProgress(out io.Writer, what string, total int64) *progress {
	p := &progress{what: what, out: out, next: time.Now().Add(progressEvery)}
	p.total.Store(total)
	p.screen = openScreen(out, false, func(width, _ int) string { return progressBar(what, p.done.Load(), p.total.Load(), width) })
	p.plain = p.screen == nil
	return p
}

// at notes how much is done, and of how much.
func (p *progress) at(done, total int64) {
	p.done.Store(done)
	p.total.Store(total)
	if now := time.Now(); p.plain && !now.Before(p.next) {
		p.next = now.Add(progressEvery)
		fmt.Fprintln(p.out, p.what+" "+progressCount(done, total))
	}
}

// close removes the line of a terminal; it may be called again.
func (p *progress) close() {
	_ = p.screen.close() // for display only
	p.screen = nil
}

func progressCount(done, total int64) string {
	if total <= 0 {
		return fmt.Sprint(done)
	}
	return fmt.Sprintf("%d of %d", min(done, total), total)
}

// progressBar draws the progress in one line.
func progressBar(what string, done, total int64, width int) string {
	const cells = 30
	full := 0
	if total > 0 {
		full = int(cells * min(done, total) / total)
	}
	bar := strings.Repeat("█", full) + strings.Repeat("░", cells-full)
	return ansi.Truncate(fmt.Sprintf("%s %s %s", what, bar, progressCount(done, total)), width, "…")
}
