package main

import (
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger writes to the standard error, which leaves the standard output to
// what a command prints. It tells the warnings that loading the settings left.
func newLogger(s settings) *zap.Logger {
	log := zap.New(logCore(s, zap.NewAtomicLevelAt(s.LogLevel)), logFaults())
	// net/http logs a line for each odd frame of HTTP/2: a receiver could fill a disk.
	if _, err := zap.RedirectStdLogAt(log.Named("http"), zap.DebugLevel); err != nil {
		log.Warn("the standard library's log stays as it is", zap.Error(err))
	}
	for _, warning := range s.warnings {
		log.Warn(warning)
	}
	return log
}

func logCore(s settings, enabled zapcore.LevelEnabler) zapcore.Core {
	return zapcore.NewCore(logEncoder(s.LogFormat), newTerminal(os.Stderr), enabled)
}

// logFaults is where the logger says that it cannot write.
func logFaults() zap.Option { return zap.ErrorOutput(newTerminal(os.Stderr)) }

func logEncoder(format string) zapcore.Encoder {
	encoder := zap.NewProductionEncoderConfig()
	encoder.TimeKey = "time"
	encoder.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder.EncodeDuration = zapcore.StringDurationEncoder
	if format != "console" {
		return zapcore.NewJSONEncoder(encoder)
	}
	encoder.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
	encoder.EncodeLevel = zapcore.CapitalLevelEncoder
	encoder.ConsoleSeparator = "  "
	return zapcore.NewConsoleEncoder(encoder)
}
