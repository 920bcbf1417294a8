package main

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// repeatsPeriod is the period of the bounds below and of the summary of what they
	// left out.
	repeatsPeriod = time.Minute
	// repeatedInfo allows ten failed attempts a second.
	repeatedInfo = 600
	repeatedWarn = 20
)

// serviceLogger is the logger of a long-running process: it summarises repeated lines,
// and a signal changes its level.
type serviceLogger struct {
	*zap.Logger
	all        *zap.Logger // writes every line
	level      zap.AtomicLevel
	configured zapcore.Level

	mu   sync.Mutex
	left map[string]int // lines left out since the last summary; guarded by mu
}

func newServiceLogger(s settings) *serviceLogger {
	l := limitedLogger(s.LogLevel, func(enabled zapcore.LevelEnabler) zapcore.Core { return logCore(s, enabled) })
	for _, warning := range s.warnings {
		l.Warn(warning)
	}
	return l
}

// limitedLogger joins three cores: one bounds lines of level info, one those above, and
// one leaves debug unbounded.
func limitedLogger(level zapcore.Level, core func(zapcore.LevelEnabler) zapcore.Core) *serviceLogger {
	l := &serviceLogger{level: zap.NewAtomicLevelAt(level), configured: level, left: map[string]int{}}
	only := func(which func(zapcore.Level) bool) zapcore.Core {
		return core(zap.LevelEnablerFunc(func(of zapcore.Level) bool { return l.level.Enabled(of) && which(of) }))
	}
	debugging := func() bool { return l.level.Level() == zapcore.DebugLevel }
	sampled := func(most int, which func(zapcore.Level) bool) zapcore.Core {
		bounded := only(func(of zapcore.Level) bool { return !debugging() && which(of) })
		return zapcore.NewSamplerWithOptions(bounded, repeatsPeriod, most, 0, zapcore.SamplerHook(l.decided))
	}
	l.all = zap.New(core(l.level), logFaults())
	l.Logger = zap.New(zapcore.NewTee(
		only(func(zapcore.Level) bool { return debugging() }),
		sampled(repeatedInfo, func(of zapcore.Level) bool { return of == zapcore.InfoLevel }),
		sampled(repeatedWarn, func(of zapcore.Level) bool { return of > zapcore.InfoLevel }),
	), logFaults())
	return l
}

// decided is called for every line to which the bounds apply.
func (l *serviceLogger) decided(entry zapcore.Entry, decision zapcore.SamplingDecision) {
	if decision&zapcore.LogDropped == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left[entry.Message]++
}

// summarise logs how many lines were left out since its last call.
func (l *serviceLogger) summarise() {
	l.mu.Lock()
	left := l.left
	l.left = map[string]int{}
	l.mu.Unlock()
	for _, line := range slices.Sorted(maps.Keys(left)) {
		l.all.Warn("repeated lines suppressed", zap.String("line", line), zap.Int("lines", left[line]))
	}
}

// run summarises, and changes the level on a signal, until ctx ends.
func (l *serviceLogger) run(ctx context.Context, asked <-chan os.Signal) {
	tick := time.NewTicker(repeatsPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.summarise()
		case <-asked:
			l.toggle()
		}
	}
}

// toggle switches to debug, and from there back to the configured level, or to info if
// that is debug.
func (l *serviceLogger) toggle() {
	next := zapcore.DebugLevel
	if l.level.Level() == zapcore.DebugLevel {
		next = max(l.configured, zapcore.InfoLevel)
	}
	before := l.level.Level()
	l.level.SetLevel(min(before, next)) // so that the next line is written
	l.all.Info("log level changed", zap.Stringer("from", before), zap.Stringer("to", next))
	l.level.SetLevel(next)
}
