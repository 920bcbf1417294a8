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
	// repeatsPeriod is what the bounds below are for, and how often it is told
	// what they left out.
	repeatsPeriod = time.Minute
	// repeatedInfo leaves room for an attempt that fails ten times a second.
	repeatedInfo = 600
	repeatedWarn = 20
)

// serviceLogger is the log of a process that runs for long: a line that repeats
// is summarised, and the level can be changed.
type serviceLogger struct {
	*zap.Logger
	all        *zap.Logger // leaves nothing out
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

// limitedLogger joins three cores: what is bounded at info, what is bounded
// above, and what is not.
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

// decided is told of every line that the bounds apply to.
func (l *serviceLogger) decided(entry zapcore.Entry, decision zapcore.SamplingDecision) {
	if decision&zapcore.LogDropped == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left[entry.Message]++
}

// summarise tells what was left out since it was last called.
func (l *serviceLogger) summarise() {
	l.mu.Lock()
	left := l.left
	l.left = map[string]int{}
	l.mu.Unlock()
	for _, line := range slices.Sorted(maps.Keys(left)) {
		l.all.Warn("repeated lines suppressed", zap.String("line", line), zap.Int("lines", left[line]))
	}
}

// run summarises, and changes the level when it is asked to, until ctx ends.
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

// toggle goes to debug, or from there back to what is configured, or to info
// where that is debug.
func (l *serviceLogger) toggle() {
	next := zapcore.DebugLevel
	if l.level.Level() == zapcore.DebugLevel {
		next = max(l.configured, zapcore.InfoLevel)
	}
	before := l.level.Level()
	l.level.SetLevel(min(before, next)) // so that this line is written
	l.all.Info("log level changed", zap.Stringer("from", before), zap.Stringer("to", next))
	l.level.SetLevel(next)
}
