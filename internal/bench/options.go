package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Options say what is measured and how large. There are no zero values:
// [Defaults] has them.
type Options struct {
	Walhook Program
	Version string // walhook's
	PGBin   string // folder of the PostgreSQL programs; "" searches

	Measures    []string // by name, see [Measures]
	Repetitions int

	Changes     int // of drain and bulk
	Accounts    int
	Receivers   int // addresses that the accounts' endpoints are spread over
	Concurrency int // of the plain POSTs

	// Step hears what is being done; it may be nil.
	Step func(message string)
}

// Defaults measure everything that is not long, in less than ten minutes on two
// cores.
func Defaults() Options {
	return Options{
		Measures: DefaultMeasures(), Repetitions: 3,
		Changes: 100_000, Accounts: 1000, Receivers: 4, Concurrency: 64,
	}
}

// Validate lists everything that is wrong with o.
func (o Options) Validate() error {
	var faults []error
	for _, name := range o.Measures {
		if !slices.Contains(Measures(), name) {
			faults = append(faults, fmt.Errorf("measure %q: want one of %s", name, strings.Join(Measures(), ", ")))
		}
	}
	for _, n := range []struct {
		name          string
		value, lo, hi int
	}{
		{"repetitions", o.Repetitions, 1, 100},
		{"changes", o.Changes, 100, 10_000_000},
		{"accounts", o.Accounts, 1, 1_000_000},
		{"receivers", o.Receivers, 1, 1000},
		{"concurrency", o.Concurrency, 1, 10_000},
	} {
		if n.value < n.lo || n.value > n.hi {
			faults = append(faults, fmt.Errorf("%s %d: want %d to %d", n.name, n.value, n.lo, n.hi))
		}
	}
	return errors.Join(faults...)
}
