//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// levelSignals delivers SIGUSR1 until stop.
func levelSignals() (asked <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	return signals, func() { signal.Stop(signals) }
}
