//go:build !unix

package main

import (
	"errors"
	"os"
)

// openNoFollow is nothing: this system has no such flag.
const openNoFollow = 0

// lockNow locks nothing: this system has no lock that ends with the process.
func lockNow(*os.File) error { return &noLocksError{errors.ErrUnsupported} }
