package main

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func observedLogger(level zapcore.Level) (*serviceLogger, *observer.ObservedLogs) {
	var all *observer.ObservedLogs
	var kept zapcore.Core
	kept, all = observer.New(zapcore.DebugLevel)
	return limitedLogger(level, func(enabled zapcore.LevelEnabler) zapcore.Core { return leveled{kept, enabled} }), all
}

// leveled is a core with a level of its own.
type leveled struct {
	zapcore.Core
	enabled zapcore.LevelEnabler
}

func (c leveled) Enabled(l zapcore.Level) bool { return c.enabled.Enabled(l) }
func (c leveled) With(fields []zapcore.Field) zapcore.Core {
	return leveled{c.Core.With(fields), c.enabled}
}
func (c leveled) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) {
		return ce
	}
	return ce.AddCore(e, c.Core)
}

func TestLogger_SummarisesWhatRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logs := observedLogger(zapcore.InfoLevel)
		go log.run(t.Context(), nil)
		for minute := range 3 {
			for range 5000 {
				log.Named("outbox").Warn("logical message refused", zap.Int("minute", minute))
				log.Named("sender").With(zap.Int("x", 1)).Info("attempt")
				time.Sleep(time.Millisecond)
			}
			log.Error("another", zap.Int("minute", minute))
			time.Sleep(time.Minute - 5*time.Second)
		}
		synctest.Wait()
		count := func(message string) int { return logs.FilterMessage(message).Len() }
		if n := count("logical message refused"); n != 3*repeatedWarn {
			t.Errorf("%d warnings in three minutes", n)
		}
		if n := count("attempt"); n != 3*repeatedInfo {
			t.Errorf("%d attempts in three minutes", n)
		}
		if count("another") != 3 {
			t.Error("a line that does not repeat is left out")
		}
		left := map[string]int64{}
		for _, entry := range logs.FilterMessage("repeated lines suppressed").All() {
			fields := entry.ContextMap()
			left[fields["line"].(string)] += fields["lines"].(int64)
		}
		if left["logical message refused"] != 3*(5000-repeatedWarn) || left["attempt"] != 3*(5000-repeatedInfo) {
			t.Errorf("left out, as told: %v", left)
		}
		if n := logs.Len(); n > 3*(repeatedWarn+repeatedInfo+1+2) {
			t.Errorf("%d lines", n)
		}
	})
}

func TestLogger_LeavesNothingOutAtDebug(t *testing.T) {
	log, logs := observedLogger(zapcore.DebugLevel)
	for range 1000 {
		log.Warn("warning")
		log.Debug("attempt")
	}
	if logs.Len() != 2000 {
		t.Errorf("%d lines, want 2000", logs.Len())
	}
}

func TestLogger_TogglesBetweenDebugAndWhatIsConfigured(t *testing.T) {
	for configured, want := range map[zapcore.Level][]zapcore.Level{
		zapcore.InfoLevel:  {zapcore.DebugLevel, zapcore.InfoLevel, zapcore.DebugLevel},
		zapcore.ErrorLevel: {zapcore.DebugLevel, zapcore.ErrorLevel, zapcore.DebugLevel},
		zapcore.DebugLevel: {zapcore.InfoLevel, zapcore.DebugLevel, zapcore.InfoLevel},
	} {
		log, logs := observedLogger(configured)
		for i, level := range want {
			log.toggle()
			if log.level.Level() != level || logs.FilterMessage("log level changed").Len() != i+1 {
				t.Errorf("configured %s, after %d signals: %s, %d lines say so", configured, i+1, log.level.Level(), logs.Len())
			}
		}
	}
}
