//go:build !unix

package main

import "os"

// levelSignals delivers nothing: this system has no such signal.
func levelSignals() (asked <-chan os.Signal, stop func()) { return nil, func() {} }
