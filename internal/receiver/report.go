package receiver

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"walhook/internal/carrier"
)

// Counts are the referee's results, for one account or for all.
type Counts struct {
	Expected  int `json:"expected"`  // events of the ledger
	Delivered int `json:"delivered"` // of these, taken with the right bytes
	Waiting   int `json:"waiting"`   // not taken yet, by an account whose receiver may refuse
	Expired   int `json:"expired"`   // not taken, and the URL was cleared later
	Lost      int `json:"lost"`      // not taken for no such reason

	Requests        int `json:"requests"`   // all of them, whatever was answered
	Retried         int `json:"retried"`    // requests with an id that had come before
	Duplicates      int `json:"duplicates"` // taken again under the same id
	Differing       int `json:"differing"`  // requests with other bytes than the first one of their id
	Unexpected      int `json:"unexpected"` // events taken that the ledger lacks, or more often than it has them
	WrongBodies     int `json:"wrong_bodies"`
	BadSignatures   int `json:"bad_signatures"`
	OrderViolations int `json:"order_violations"` // events taken out of their record's order
}

func (c *Counts) add(o Counts) {
	c.Expected += o.Expected
	c.Delivered += o.Delivered
	c.Waiting += o.Waiting
	c.Expired += o.Expired
	c.Lost += o.Lost
	c.Requests += o.Requests
	c.Retried += o.Retried
	c.Duplicates += o.Duplicates
	c.Differing += o.Differing
	c.Unexpected += o.Unexpected
	c.WrongBodies += o.WrongBodies
	c.BadSignatures += o.BadSignatures
	c.OrderViolations += o.OrderViolations
}

// OK reports whether the contract was kept. Duplicates with the same bytes are allowed,
// since delivery is at least once.
func (c Counts) OK() bool {
	return c.Lost+c.Differing+c.Unexpected+c.WrongBodies+c.BadSignatures+c.OrderViolations == 0
}

// maxFaults is how many faults a report describes.
const maxFaults = 20

// Report is the referee's report.
type Report struct {
	Counts
	Accounts map[string]Counts  `json:"-"`
	Schemas  map[string]int     `json:"schemas"` // events delivered, by schema
	Latency  map[string]Latency `json:"latency"` // commit to 2xx, by class of receiver
	Faults   []string           `json:"faults,omitempty"`
	// Absent are the Expired ones: each must be kept as a dead letter.
	Absent []carrier.Expected `json:"-"`
}

func (r *Report) fault(format string, args ...any) {
	if len(r.Faults) < maxFaults {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// Latency is a distribution of times.
type Latency struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

func latencies(samples map[string][]time.Duration) map[string]Latency {
	all := map[string]Latency{}
	for _, class := range slices.Sorted(maps.Keys(samples)) {
		times := samples[class]
		slices.Sort(times)
		all[class] = Latency{Count: len(times), P50: quantile(times, 50), P99: quantile(times, 99), Max: times[len(times)-1]}
	}
	return all
}

// quantile returns a percentile of sorted times.
func quantile(sorted []time.Duration, per int) time.Duration {
	return sorted[max((len(sorted)*per+99)/100, 1)-1]
}
