package main

import (
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger returns a logger on standard error; standard output is for the results of
// commands. It logs the warnings about the settings.
func newLogger(s settings) *zap.Logger { return newLoggerTo(s, newTerminal(os.Stderr)) }

func newLoggerTo(s settings, to zapcore.WriteSyncer) *zap.Logger {
	log := zap.New(zapcore.NewCore(logEncoder(s.LogFormat), to, zap.NewAtomicLevelAt(s.LogLevel)), logFaults())
	// net/http logs a line for each invalid HTTP/2 frame, so a receiver could fill a disk.
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

// logFaults is where the logger reports that it cannot write.
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
