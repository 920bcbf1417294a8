package receiver

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"walhook/internal/carrier"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// world is a ledger and what was delivered, before it is broken.
type world struct {
	expected   []carrier.Expected
	deliveries []Delivery
	terms      Terms
}

func newWorld() *world {
	w := &world{}
	for i, e := range []struct{ account, schema, kind, record, body string }{
		{"1", "dids", "insert", "10", "A"},
		{"1", "dids", "update", "10", "B"},
		{"2", "dids", "insert", "10", "A"}, // the same bytes for somebody else
		{"1", "dids", "update", "10", "C"},
		{"1", "dids", "update", "10", "B"}, // the same bytes again
		{"1", "faxes", "insert", "20", "F"},
		{"1", "sms_enablement", "update", "", "R"},
		{"1", "sms_enablement", "update", "", "S"},
	} {
		body := sha256.Sum256([]byte(e.body))
		w.expected = append(w.expected, carrier.Expected{
			Seq: int64(i + 1), Account: e.account, Schema: e.schema, Type: e.kind, Record: e.record, Body: body, CommittedAt: noon,
		})
		w.deliveries = append(w.deliveries, Delivery{
			Account: e.account, ID: fmt.Sprintf("evt_%016X_1", i+1), Schema: e.schema, Type: e.kind, Record: e.record,
			Body: body, Status: 200, Answered: noon.Add(time.Duration(i+1) * time.Millisecond),
		})
	}
	return w
}

// with counts of a world in which all is well but for what a test names.
func counts(change func(*Counts)) Counts {
	c := Counts{Expected: 8, Delivered: 8, Requests: 8}
	change(&c)
	return c
}

func TestVerify_FindsWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		name  string
		wreck func(*world)
		want  Counts
		ok    bool
	}{
		{"all is well", func(*world) {}, counts(func(*Counts) {}), true},
		{"records overtake each other", func(w *world) { slices.Reverse(w.deliveries[4:6]) }, counts(func(*Counts) {}), true},
		{"lost", func(w *world) { w.deliveries = slices.Delete(w.deliveries, 3, 4) },
			counts(func(c *Counts) { c.Delivered, c.Requests, c.Lost = 7, 7, 1 }), false},
		{"one of two with the same bytes is lost", func(w *world) { w.deliveries = slices.Delete(w.deliveries, 1, 2) },
			counts(func(c *Counts) { c.Delivered, c.Requests, c.Lost = 7, 7, 1 }), false},
		{"refused and not sent again", func(w *world) { w.deliveries[3].Status = 500 },
			counts(func(c *Counts) { c.Delivered, c.Lost = 7, 1 }), false},
		{"refused and sent again", func(w *world) {
			again := w.deliveries[3]
			w.deliveries[3].Status = 0
			w.deliveries = slices.Insert(w.deliveries, 4, again)
		}, counts(func(c *Counts) { c.Requests, c.Retried = 9, 1 }), true},
		{"a duplicate", func(w *world) { w.deliveries = append(w.deliveries, w.deliveries[3]) },
			counts(func(c *Counts) { c.Requests, c.Retried, c.Duplicates = 9, 1, 1 }), true},
		{"a duplicate of other bytes", func(w *world) {
			other := w.deliveries[3]
			other.Body[0]++
			w.deliveries = append(w.deliveries, other)
		}, counts(func(c *Counts) { c.Requests, c.Retried, c.Duplicates, c.Differing = 9, 1, 1, 1 }), false},
		{"a duplicate under another id", func(w *world) {
			other := w.deliveries[3]
			other.ID = "evt_other"
			w.deliveries = append(w.deliveries, other)
		}, counts(func(c *Counts) { c.Requests, c.Unexpected = 9, 1 }), false},
		{"a wrong byte", func(w *world) { w.deliveries[5].Body[0]++ },
			counts(func(c *Counts) { c.Delivered, c.WrongBodies = 7, 1 }), false},
		{"two swapped", func(w *world) { slices.Reverse(w.deliveries[0:2]) },
			counts(func(c *Counts) { c.OrderViolations = 1 }), false},
		{"results swapped", func(w *world) { slices.Reverse(w.deliveries[6:8]) },
			counts(func(c *Counts) { c.OrderViolations = 1 }), false},
		{"a later event overtakes a retry", func(w *world) {
			again := w.deliveries[0]
			w.deliveries[0].Status = 503
			w.deliveries = slices.Insert(w.deliveries, 2, again)
		}, counts(func(c *Counts) { c.Requests, c.Retried, c.OrderViolations = 9, 1, 1 }), false},
		{"a stranger's event", func(w *world) { w.deliveries[5].Account = "2" },
			counts(func(c *Counts) { c.Delivered, c.Lost, c.Unexpected = 7, 1, 1 }), false},
		{"a bad signature", func(w *world) { w.deliveries[2].BadSig = errors.New("no matching signature") },
			counts(func(c *Counts) { c.BadSignatures = 1 }), false},
		{"nothing at a dead receiver", func(w *world) {
			w.deliveries = slices.Delete(w.deliveries, 2, 3)
			w.terms.MayWait = func(account string) bool { return account == "2" }
		}, counts(func(c *Counts) { c.Delivered, c.Requests, c.Waiting = 7, 7, 1 }), true},
		{"expired before the URL was cleared", func(w *world) {
			w.expected[1].MayExpire = true // the later one with the same bytes came
			w.deliveries = slices.Delete(w.deliveries, 1, 2)
		}, counts(func(c *Counts) { c.Delivered, c.Requests, c.Expired = 7, 7, 1 }), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld()
			test.wreck(w)
			report := Verify(w.expected, w.deliveries, w.terms)
			if report.Counts != test.want {
				t.Errorf("got  %+v\nwant %+v\n%q", report.Counts, test.want, report.Faults)
			}
			if report.OK() != test.ok || (len(report.Faults) == 0) != test.ok {
				t.Errorf("OK is %v with faults %q", report.OK(), report.Faults)
			}
		})
	}
}

func TestVerify_CountsByAccountAndSchemaAndClass(t *testing.T) {
	w := newWorld()
	w.terms.Class = func(account string) string { return map[string]string{"1": "healthy", "2": "slow"}[account] }
	report := Verify(w.expected, w.deliveries, w.terms)
	if report.Accounts["1"].Delivered != 7 || report.Accounts["2"].Delivered != 1 {
		t.Errorf("accounts: %+v", report.Accounts)
	}
	if report.Schemas["dids"] != 5 || report.Schemas["sms_enablement"] != 2 {
		t.Errorf("schemas: %v", report.Schemas)
	}
	want := Latency{Count: 7, P50: 5 * time.Millisecond, P99: 8 * time.Millisecond, Max: 8 * time.Millisecond}
	if report.Latency["healthy"] != want || report.Latency["slow"].P50 != 3*time.Millisecond {
		t.Errorf("latency: %+v", report.Latency)
	}
}

// The quick way for long lanes agrees with the exact one where bodies differ,
// and neither blames a lane that only lost events.
func TestOutOfOrder_CountsTheFewestEventsThatMustMove(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		want := make([]sum, 1+random.IntN(12))
		for i := range want {
			want[i] = sha256.Sum256([]byte{byte(i)})
		}
		got := slices.DeleteFunc(slices.Clone(want), func(sum) bool { return random.IntN(4) == 0 })
		if n := outOfOrder(want, got, len(got)); n != 0 {
			t.Fatalf("%d out of order after losses alone", n)
		}
		random.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		exact, quick := len(got)-longestCommon(want, got), len(got)-longestRising(places(want, got))
		if n := outOfOrder(want, got, len(got)); n != exact || exact != quick {
			t.Fatalf("%d, exact %d, quick %d", n, exact, quick)
		}
	}
}
