package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"walhook/outbox"
)

// Options say what to measure and in which size. Zero values have no meaning; start from
// [Defaults].
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
	Batch       int // of drain, events of a batch; 0: measure no batches

	Rates  []float64     // of latency, transactions a second
	Length time.Duration // of each run at a rate

	Endpoints     int // of trouble
	Hanging       int // per cent of them
	Refusing      int // per cent of them
	TroubleRate   float64
	TroubleLength time.Duration // with trouble, and as long without

	FanOut           []int // endpoints of an account
	FanOutDeliveries int

	Senders      []int // of scale
	ScaleChanges int
	ScaleRate    float64
	ScaleLength  time.Duration // at the rate

	EditWebhooks int     // of edits
	Edits        float64 // a second
	EditRate     float64 // transactions a second

	IdleEndpoints int
	IdleLength    time.Duration // of an observation
	IdleSettle    time.Duration // before the last observation
	MemoryChanges int           // single-row transactions
	MemoryRows    int           // of one transaction
	Waiting       []int         // events in the outbox
	Age           int           // events before retention

	// Step is called with a text at each step; it may be nil.
	Step func(message string)
}

// Defaults returns options for all measures that are not long. They take less than ten
// minutes on two cores.
func Defaults() Options {
	return Options{
		Measures: DefaultMeasures(), Repetitions: 3,
		Changes: 60_000, Accounts: 1000, Receivers: 4, Concurrency: 64,
		Rates: []float64{100, 1000, 5000}, Length: 8 * time.Second,
		Endpoints: 10_000, Hanging: 10, Refusing: 1, TroubleRate: 1000, TroubleLength: 10 * time.Second,
		FanOut: []int{1, 10, 100}, FanOutDeliveries: 30_000,
		Senders: []int{1, 2, 4}, ScaleChanges: 20_000, ScaleRate: 500, ScaleLength: 2 * time.Second,
		EditWebhooks: 100_000, Edits: 100, EditRate: 200,
		IdleEndpoints: 100_000, IdleLength: 30 * time.Second, IdleSettle: 2 * time.Minute, MemoryChanges: 200_000, MemoryRows: 2_000_000,
		Waiting: []int{100_000, 1_000_000}, Age: 5_000_000,
	}
}

// Validate lists every fault of o.
func (o Options) Validate() error {
	var faults []error
	for _, name := range o.Measures {
		if !slices.Contains(Measures(), name) {
			faults = append(faults, fmt.Errorf("measure %q: want one of %s", name, strings.Join(Measures(), ", ")))
		}
	}
	for _, n := range o.sizes() {
		if n.value < n.lo || n.value > n.hi {
			faults = append(faults, fmt.Errorf("%s %d: want %d to %d", n.name, n.value, n.lo, n.hi))
		}
	}
	if o.Batch > 0 && !slices.Contains(o.Measures, "drain") {
		faults = append(faults, fmt.Errorf("batch %d: it is of the measure drain, which is not to run; add drain", o.Batch))
	}
	if o.Hanging+o.Refusing > 99 {
		faults = append(faults, fmt.Errorf("%d %% that hang and %d %% that refuse: want some healthy ones", o.Hanging, o.Refusing))
	}
	for _, rate := range append(o.Rates[:len(o.Rates):len(o.Rates)], o.TroubleRate, o.ScaleRate, o.Edits, o.EditRate) {
		if !(rate >= 1 && rate <= 100_000) {
			faults = append(faults, fmt.Errorf("rate %g: want 1 to 100000 a second", rate))
		}
	}
	for _, length := range []time.Duration{o.Length, o.TroubleLength, o.ScaleLength, o.IdleLength, o.IdleSettle} {
		if length < 100*time.Millisecond || length > time.Hour {
			faults = append(faults, fmt.Errorf("length %s: want 100ms to 1h", length))
		}
	}
	return errors.Join(faults...)
}

// size is a numeric option with its bounds.
type size struct {
	name          string
	value, lo, hi int
}

func (o Options) sizes() []size {
	sizes := []size{
		{"repetitions", o.Repetitions, 1, 100},
		{"changes", o.Changes, 100, 10_000_000},
		{"accounts", o.Accounts, 1, 1_000_000},
		{"receivers", o.Receivers, 1, 1000},
		{"endpoints", o.Endpoints, 100, 1_000_000},
		{"per cent that hang", o.Hanging, 0, 99},
		{"per cent that refuse", o.Refusing, 0, 99},
		{"concurrency", o.Concurrency, 1, 10_000},
		{"batch", o.Batch, 0, outbox.MaxBatch},
		{"fan-out deliveries", o.FanOutDeliveries, 100, 10_000_000},
		{"scale changes", o.ScaleChanges, 100, 10_000_000},
		{"edit webhooks", o.EditWebhooks, 1, 10_000_000},
		{"idle endpoints", o.IdleEndpoints, 1, 1_000_000},
		{"memory changes", o.MemoryChanges, 100, 10_000_000},
		{"memory rows", o.MemoryRows, 100, 10_000_000},
		{"age", o.Age, 100, 100_000_000},
	}
	for _, endpoints := range o.FanOut {
		sizes = append(sizes, size{"fan-out", endpoints, 1, 10_000})
	}
	for _, senders := range o.Senders {
		sizes = append(sizes, size{"senders", senders, 1, 32})
	}
	for _, events := range o.Waiting {
		sizes = append(sizes, size{"waiting", events, 1000, 10_000_000})
	}
	return sizes
}
