package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Tally holds the receivers' counts of one run.
type Tally struct {
	Expected  int `json:"expected"`
	Delivered int `json:"delivered"` // distinct events, by their ids, answered with 2xx
	Again     int `json:"again"`     // received again under the same id
	Wrong     int `json:"wrong"`     // not a committed event, or for the wrong account
	Requests  int `json:"requests"`  // that carried them
	// PeakInFlight is the most requests at the same time.
	PeakInFlight int `json:"peak_in_flight"`
	// Verified is how many deliveries were verified: the signature with the official
	// library, the body against PostgreSQL's row.
	Verified int    `json:"verified"`
	Fault    string `json:"fault,omitempty"` // the first wrong one

	First time.Time `json:"-"` // when the first 2xx was given
	Last  time.Time `json:"-"`
}

// expectation is what the receivers expect: the inserts of the records First to
// First+Count-1, each once at each of its account's endpoints 0 to Copies-1.
type expectation struct {
	First, Count, Copies int64
	Batch                int  // most events of a request, which is an array; 0: one event, and no array
	Sampled              bool // keep samples, which are verified later
}

// maxSamples bounds the samples for verification.
const maxSamples = 256

// sample is a delivery as it arrived.
type sample struct {
	Record    int64
	Account   string
	Copy      int64
	ID        string // the request's webhook-id
	Timestamp string
	Signature string
	Body      []byte
	Array     []byte // of which Body is an element, and which is signed; nil: Body is
}

// count counts the deliveries of an expectation, at tens of thousands of requests a
// second. It leaves expensive work to the report.
type count struct {
	expectation
	every     int64           // one of this number of records is a sample
	slots     []slot          // the copies of a record are next to each other
	stripes   [256]sync.Mutex // guard slots, by the low bits of their index
	delivered atomic.Int64
	again     atomic.Int64
	wrong     atomic.Int64
	requests  atomic.Int64

	mu      sync.Mutex
	samples []sample // guarded by mu
	fault   string   // guarded by mu
}

// slot is the first delivery of a record to one endpoint.
type slot struct {
	commit  uint64 // of its webhook-id
	ordinal uint32
	copy    uint32
	at      int64 // when it was answered, in Unix nanoseconds; 0 for not yet
}

func newCount(e expectation) *count {
	n := e.Count * e.Copies
	return &count{expectation: e, every: max(n/(maxSamples/2), 1), slots: make([]slot, n)}
}

// take counts one request and reports whether to answer 2xx.
func (c *count) take(account string, copy int64, header http.Header, body []byte) bool {
	c.requests.Add(1)
	if c.Batch > 0 {
		return c.takeBatch(account, copy, header, body)
	}
	return c.takeEvent(account, copy, header, header.Get("webhook-id"), body, nil)
}

// takeEvent counts an event: a request, or an element of an array.
func (c *count) takeEvent(account string, copy int64, header http.Header, id string, body, array []byte) bool {
	record, owner, ok := parseBody(body)
	commit, ordinal, idOK := parseID(id)
	signature := header.Get("webhook-signature")
	index := (record-c.First)*c.Copies + copy
	switch {
	case !ok || !idOK || record < c.First || record >= c.First+c.Count:
		c.note("not an event of this run: %s %s", id, body)
		return false
	case owner != account:
		c.note("record %d of account %s came to %s", record, owner, account)
		return false
	case copy < 0 || copy >= c.Copies:
		c.note("record %d came to endpoint %d of its account", record, copy)
		return false
	case !strings.HasPrefix(signature, "v1,") || header.Get("Content-Type") != "application/json":
		c.note("record %d: signature %q, content type %q", record, signature, header.Get("Content-Type"))
		return false
	}
	stripe := &c.stripes[index%int64(len(c.stripes))]
	stripe.Lock()
	s := &c.slots[index]
	first := s.at == 0
	if first {
		*s = slot{commit: commit, ordinal: ordinal, copy: uint32(copy), at: time.Now().UnixNano()}
	}
	same := s.commit == commit && s.ordinal == ordinal
	stripe.Unlock()
	switch {
	case first:
		if c.Sampled && index%c.every == 0 {
			c.keep(sample{
				record, strings.Clone(account), copy, header.Get("webhook-id"), header.Get("webhook-timestamp"), signature,
				bytes.Clone(body), bytes.Clone(array),
			})
		}
		c.delivered.Add(1)
	case same:
		c.again.Add(1)
	default:
		c.note("record %d came under a second webhook-id, %s", record, id)
	}
	return true
}

func (c *count) keep(s sample) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.samples) < maxSamples {
		c.samples = append(c.samples, s)
	}
}

// note counts a wrong request and keeps the first one's description.
func (c *count) note(format string, args ...any) {
	c.wrong.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault == "" {
		c.fault = fmt.Sprintf(format, args...)
		c.fault = c.fault[:min(len(c.fault), 500)]
	}
}

// tally adds up. Two records with the same webhook-id are wrong, and so is a record with
// different webhook-ids at its endpoints.
func (c *count) tally(peak int64) Tally {
	t := Tally{Expected: len(c.slots), PeakInFlight: int(peak)}
	var taken []slot
	for i := range c.slots {
		stripe := &c.stripes[i%len(c.stripes)]
		stripe.Lock()
		one := c.slots[i]
		stripe.Unlock()
		if one.at == 0 {
			continue
		}
		if original := c.slots[i-int(one.copy)]; original.at != 0 && (original.commit != one.commit || original.ordinal != one.ordinal) {
			c.note("record %d has another webhook-id at endpoint %d", c.First+int64(i)/c.Copies, one.copy)
		}
		taken = append(taken, one)
	}
	if len(taken) > 0 {
		byTime := func(a, b slot) int { return cmp.Compare(a.at, b.at) }
		t.First = time.Unix(0, slices.MinFunc(taken, byTime).at)
		t.Last = time.Unix(0, slices.MaxFunc(taken, byTime).at)
	}
	slices.SortFunc(taken, func(a, b slot) int {
		return cmp.Or(cmp.Compare(a.commit, b.commit), cmp.Compare(a.ordinal, b.ordinal), cmp.Compare(a.copy, b.copy))
	})
	all := len(taken)
	distinct := slices.CompactFunc(taken, func(a, b slot) bool {
		return a.commit == b.commit && a.ordinal == b.ordinal && a.copy == b.copy
	})
	if shared := all - len(distinct); shared > 0 {
		c.note("%d records share their webhook-id with another", shared)
		c.wrong.Add(int64(shared - 1))
	}
	t.Delivered, t.Again, t.Wrong = len(distinct), int(c.again.Load()), int(c.wrong.Load())
	t.Requests = int(c.requests.Load())
	c.mu.Lock()
	t.Fault = c.fault
	c.mu.Unlock()
	return t
}

// times returns when each record was first answered at each endpoint, in Unix
// nanoseconds; 0 for never.
func (c *count) times() []int64 {
	times := make([]int64, len(c.slots))
	for i := range c.slots {
		stripe := &c.stripes[i%len(c.stripes)]
		stripe.Lock()
		times[i] = c.slots[i].at
		stripe.Unlock()
	}
	return times
}

// The beginning and the end of the envelope of an inserted did (docs/CONTRACT.md §1).
const (
	bodyStart = `{"type":"insert","schema":"dids","data":"{\"id\":`
	bodyOwner = `,\"user_id\":`
	bodyEnd   = `}"}`
)

// parseBody reads a record's id and its account's.
func parseBody(body []byte) (record int64, account string, ok bool) {
	rest, ok := bytes.CutPrefix(body, []byte(bodyStart))
	if !ok || !bytes.HasSuffix(body, []byte(bodyEnd)) {
		return 0, "", false
	}
	id, rest, ok := bytes.Cut(rest, []byte(bodyOwner))
	if !ok {
		return 0, "", false
	}
	record, err := strconv.ParseInt(string(id), 10, 64)
	owner, _, ok := bytes.Cut(rest, []byte(","))
	return record, string(owner), ok && err == nil
}

// parseID parses evt_<16 hex digits>_<ordinal> (docs/CONTRACT.md §3).
func parseID(id string) (commit uint64, ordinal uint32, ok bool) {
	if len(id) < 22 || id[:4] != "evt_" || id[20] != '_' {
		return 0, 0, false
	}
	commit, err := strconv.ParseUint(id[4:20], 16, 64)
	n, err2 := strconv.ParseUint(id[21:], 10, 32)
	return commit, uint32(n), err == nil && err2 == nil
}
