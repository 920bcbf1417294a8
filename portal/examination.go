package portal

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/outbox/admin"
)

// Check is one check of `walhook doctor` in the command's words.
type Check struct {
	ID       string
	Status   string // ok, warning, failed or skipped
	Evidence string
	Fix      string // lines: what to run, and where
}

// examinationTimeout bounds all checks together.
const examinationTimeout = time.Minute

// examination makes the checks of `walhook doctor`, one examination at a time and behind
// the pages, which show the latest one.
type examination struct {
	run func(context.Context) ([]Check, error) // nil where this process cannot
	log *zap.Logger

	mu      sync.Mutex // guards the rest
	running bool
	began   time.Time
	latest  []Check
	ended   time.Time // of latest; zero before the first
	failed  bool      // the last one ended without a result
}

// start begins an examination, unless one is running. The checks read only, and end by
// their own time limit, also when whoever asked for them is gone.
func (e *examination) start(ctx context.Context) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running {
		return false
	}
	e.running, e.began = true, time.Now()
	go e.examine(context.WithoutCancel(ctx))
	return true
}

func (e *examination) examine(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, examinationTimeout, errors.New("doctor: timed out"))
	defer cancel()
	checks, err := e.safely(ctx)
	if err != nil {
		e.log.Error("doctor failed", zap.Error(err))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.failed = false, err != nil
	if err == nil {
		e.latest, e.ended = checks, time.Now()
	}
}

// safely turns a panic into an error: it would end the process, which also sends.
func (e *examination) safely(ctx context.Context) (checks []Check, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			e.log.Error("panic in doctor", zap.Any("panic", fault), zap.Stack("stack"))
			err = errors.New("doctor ended by a panic")
		}
	}()
	return e.run(ctx)
}

// examinationPage is the latest examination.
type examinationPage struct {
	Off, Running, Failed bool
	Began, Ended         time.Time
	Bad, Good            []checkRow // Bad needs somebody
	Marks                []mark     // how many checks ended how
	Checks               int
}

type checkRow struct {
	Check
	Mark mark
}

func (e *examination) page(p *pages) examinationPage {
	e.mu.Lock()
	defer e.mu.Unlock()
	page := examinationPage{Off: e.run == nil, Running: e.running, Failed: e.failed, Began: e.began, Ended: e.ended, Checks: len(e.latest)}
	counts := map[string]int{}
	for _, c := range e.latest {
		counts[c.Status]++
		row := checkRow{c, p.checkMark(c.Status)}
		switch c.Status {
		case "failed":
			page.Bad = slices.Insert(page.Bad, counts[c.Status]-1, row)
		case "warning":
			page.Bad = append(page.Bad, row)
		default:
			page.Good = append(page.Good, row)
		}
	}
	page.Marks = countedMarks(counts, p.checkMark)
	return page
}

func (p *pages) checkMark(status string) mark {
	kind := map[string]string{"ok": "good", "warning": "warn", "failed": "bad", "skipped": "idle"}[status]
	if kind == "" {
		return mark{Kind: "idle", Sign: "?", Text: status}
	}
	return p.mark(kind, "check."+status)
}

// showDoctor shows the latest examination.
func (p *Portal) showDoctor(v *visit) {
	v.show(http.StatusOK, "doctor", p.doctor.page(p.pages))
}

// startDoctor begins an examination, and shows it.
func (p *Portal) startDoctor(v *visit) {
	if p.doctor.run == nil {
		v.fail(http.StatusConflict, "doctor.off")
		return
	}
	if p.doctor.start(v.r.Context()) {
		ctx := admin.WithActor(v.r.Context(), admin.Actor{Name: v.name()})
		if err := p.cfg.Admin.Audit(ctx, admin.Act{Action: admin.ActDoctor}); err != nil {
			p.log.Error("audit not written", zap.Error(err))
		}
		p.log.Info("audit", zap.String("action", admin.ActDoctor), zap.String("who", v.name()))
	}
	v.redirect("doctor")
}
