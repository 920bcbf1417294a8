package main

import (
	"fmt"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger writes to the standard error, which leaves the standard output to
// what a command prints. It tells the warnings that loading the settings left.
func newLogger(s settings) (*zap.Logger, error) {
	encoder := zap.NewProductionEncoderConfig()
	encoder.TimeKey = "time"
	encoder.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder.EncodeDuration = zapcore.StringDurationEncoder
	if s.LogFormat == "console" {
		encoder.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoder.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder.ConsoleSeparator = "  "
	}
	log, err := zap.Config{
		Level:             zap.NewAtomicLevelAt(s.LogLevel),
		Encoding:          s.LogFormat,
		EncoderConfig:     encoder,
		OutputPaths:       []string{"stderr"},
		ErrorOutputPaths:  []string{"stderr"},
		DisableCaller:     true,
		DisableStacktrace: true,
	}.Build()
	if err != nil {
		return nil, fmt.Errorf("make the logger: %w", err)
	}
	for _, warning := range s.warnings {
		log.Warn(warning)
	}
	return log, nil
}
