package outbox

import (
	"sync"
	"time"

	"walhook/schemas"
)

// watermark knows up to which instant, by the source's clock, all that was
// committed is stored. The reader's watch samples where the WAL ended when; the
// appends say what of it is stored.
type watermark struct {
	mu    sync.Mutex
	flush schemas.LSN
	until time.Time
	marks []mark // not stored yet, in order
}

type mark struct {
	end schemas.LSN
	at  time.Time
}

// maxMarks bounds what is remembered while nothing is stored. The oldest are
// kept: they are reached first.
const maxMarks = 1000

// ObserveSourceTime notes that the source's WAL ended at end at an instant of its clock.
func (p *Publisher) ObserveSourceTime(end schemas.LSN, at time.Time) {
	r := &p.watermark
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.marks) < maxMarks {
		r.marks = append(r.marks, mark{end, at})
	}
	r.settle()
}

// stored notes how far the WAL is stored.
func (r *watermark) stored(flush schemas.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush = max(r.flush, flush)
	r.settle()
}

// restart forgets what another session observed.
func (r *watermark) restart(flush schemas.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush, r.until, r.marks = flush, time.Time{}, nil
}

func (r *watermark) settle() {
	for len(r.marks) > 0 && r.marks[0].end <= r.flush {
		r.until = r.marks[0].at
		r.marks = r.marks[1:]
	}
}

// at is the instant; zero while it is not known.
func (r *watermark) at() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until
}
