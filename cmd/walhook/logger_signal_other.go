//go:build !unix

package main

import "os"

// levelSignals delivers nothing: there is no such signal here.
func levelSignals() (asked <-chan os.Signal, stop func()) { return nil, func() {} }
