package cdc

import (
	"sync"
	"time"

	"walhook/schemas"
)

const (
	// markEvery is how often the reader asks where the source's log ends.
	markEvery = 2 * time.Second

	// maxMarks bounds those that are kept.
	maxMarks = 256

	// standbyTolerance is how late a standby learns of what is stored elsewhere:
	// an idle reader confirms every ten seconds.
	standbyTolerance = 15 * time.Second
)

// lag says since when there has been something in the source's log that is not
// stored. It keeps marks: at an instant the log ended there. What was committed
// before that instant is stored once that place is, or once the source has sent
// all up to it and nothing of that waits.
type lag struct {
	mu       sync.Mutex
	marks    []mark    // not covered, in order; guarded by mu
	last     time.Time // of the latest mark; guarded by mu
	complete time.Time // of the latest mark that is covered; guarded by mu
	read     uint64    // up to where this session was sent all; 0 for none; guarded by mu
}

// mark is where the log ended. What it holds beyond the mark before was
// committed after since.
type mark struct {
	end   uint64
	at    time.Time
	since time.Time
}

// startsAt takes from the store when it last advanced: what is not stored was
// committed after that. What this process saw by itself is closer.
func (l *lag) startsAt(stored time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.complete.IsZero() {
		return
	}
	l.complete = stored
	if l.last.IsZero() {
		l.last = stored
	}
	if len(l.marks) > 0 && stored.Before(l.marks[0].since) {
		l.marks[0].since = stored
	}
}

// mark notes where the source's log ends now.
func (l *lag) mark(end schemas.LSN, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := now
	if !l.last.IsZero() && now.Sub(l.last) > 3*markEvery {
		since = l.last // nobody looked meanwhile
	}
	l.last = now
	if len(l.marks) >= maxMarks {
		for i := 1; i < maxMarks/2; i++ { // every other one, with the earlier instant
			l.marks[i] = mark{l.marks[2*i].end, l.marks[2*i].at, l.marks[2*i-1].since}
		}
		l.marks = l.marks[:maxMarks/2]
	}
	l.marks = append(l.marks, mark{uint64(end), now, since})
}

// reads notes that the source has sent all that concerns us up to end.
func (l *lag) reads(end schemas.LSN) {
	l.mu.Lock()
	l.read = max(l.read, uint64(end))
	l.mu.Unlock()
}

// begins forgets what an earlier session was sent: it is sent again.
func (l *lag) begins() {
	l.mu.Lock()
	l.read = 0
	l.mu.Unlock()
}

// since is the instant from which on something may be committed that is not
// stored; zero for nothing. waiting says that something is received and is not
// stored, and answers that the source can be asked.
func (l *lag) since(stored uint64, waiting, answers bool) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	covered := stored
	if !waiting {
		covered = max(covered, l.read)
	}
	n := 0
	for n < len(l.marks) && l.marks[n].end <= covered {
		l.complete = l.marks[n].at
		n++
	}
	l.marks = append(l.marks[:0], l.marks[n:]...)
	switch {
	case len(l.marks) > 0:
		return l.marks[0].since
	case !answers:
		return l.complete
	}
	return time.Time{}
}
