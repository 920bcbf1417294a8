package portal

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/outbox/admin"
)

// Source is how the source and walhook's slot in it stand.
type Source struct {
	Slot       string
	State      string   // of the slot's WAL, in PostgreSQL's words
	Reader     string   // the session that reads the slot; "" for none
	Standbys   []string // the sessions of processes that wait to read it
	LagKnown   bool
	LagBytes   uint64
	LagSeconds float64
	Retained   float64 // bytes of WAL that the source holds for the slot
	Limit      float64 // the most that it holds; 0 for no limit
}

// Percent is how much of the limit is used.
func (s Source) Percent() int {
	if s.Limit <= 0 {
		return 0
	}
	return int(min(100, 100*s.Retained/s.Limit))
}

const (
	// sourceEvery is for how long an answer of the source stands: each page that is open
	// asks every few seconds.
	sourceEvery   = 5 * time.Second
	sourceTimeout = 3 * time.Second
)

// sourceFacts asks the source, one question at a time.
type sourceFacts struct {
	ask func(context.Context, *admin.Status) (Source, error) // nil where this process has no source
	log *zap.Logger

	mu     sync.Mutex // held while the source is asked; guards the rest
	latest Source
	ok     bool
	at     time.Time
}

// now returns the source's latest answer, at most a few seconds old unless somebody asks
// at this moment; ok is false where it did not answer.
func (f *sourceFacts) now(ctx context.Context, st *admin.Status) (facts Source, ok bool) {
	if f.ask == nil {
		return facts, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.at) < sourceEvery {
		return f.latest, f.ok
	}
	ctx, cancel := context.WithTimeoutCause(ctx, sourceTimeout, errors.New("ask the source: timed out"))
	defer cancel()
	latest, err := f.ask(ctx, st)
	if err != nil {
		f.log.Warn("source does not answer the portal", zap.Error(err))
	}
	f.latest, f.ok, f.at = latest, err == nil, time.Now()
	return f.latest, f.ok
}
