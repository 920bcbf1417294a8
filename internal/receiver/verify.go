package receiver

import (
	"maps"
	"slices"
	"time"

	"walhook/internal/carrier"
)

// Terms tells the referee about the accounts.
type Terms struct {
	// Class names an account's kind of receiver, for the latencies; nil stands for one
	// class.
	Class func(account string) string
	// MayWait says that an account's receiver takes nothing, or not in time: an event that
	// it did not take is then waiting, not lost. Nil stands for no account.
	MayWait func(account string) bool
}

// lane is a sequence that must be in order: the events of one record at one account, or
// the results of one schema.
type lane struct{ account, schema, record string }

// story holds the expected and the taken events of one lane, both in order.
type story struct {
	expected []carrier.Expected
	taken    []Delivery // the first 2xx of each webhook-id
}

// Verify compares the ledger, in its order, with the deliveries of the receivers, each in
// the order of arrival.
func Verify(expected []carrier.Expected, deliveries []Delivery, terms Terms) Report {
	if terms.Class == nil {
		terms.Class = func(string) string { return "all" }
	}
	if terms.MayWait == nil {
		terms.MayWait = func(string) bool { return false }
	}
	v := &verification{
		terms:   terms,
		report:  Report{Accounts: map[string]Counts{}, Schemas: map[string]int{}},
		stories: map[lane]*story{},
		samples: map[string][]time.Duration{},
	}
	for _, e := range expected {
		s := v.storyOf(lane{e.Account, e.Schema, e.Record})
		s.expected = append(s.expected, e)
	}
	v.take(deliveries)
	for _, lane := range v.lanes {
		v.compare(lane, v.stories[lane])
	}
	for _, counts := range v.report.Accounts {
		v.report.add(counts)
	}
	maps.DeleteFunc(v.report.Schemas, func(_ string, n int) bool { return n == 0 })
	v.report.Latency = latencies(v.samples)
	return v.report
}

type verification struct {
	terms   Terms
	report  Report
	lanes   []lane // in order of appearance
	stories map[lane]*story
	samples map[string][]time.Duration // by class
}

func (v *verification) storyOf(l lane) *story {
	s := v.stories[l]
	if s == nil {
		s = &story{}
		v.stories[l] = s
		v.lanes = append(v.lanes, l)
	}
	return s
}

func (v *verification) count(account string, counts Counts) {
	sum := v.report.Accounts[account]
	sum.add(counts)
	v.report.Accounts[account] = sum
}

// take sorts the deliveries into their lanes and finds the errors of single deliveries.
func (v *verification) take(deliveries []Delivery) {
	type event struct{ account, id string }
	type seen struct {
		body  sum
		taken bool
	}
	events := map[event]*seen{}
	for _, d := range deliveries {
		counts := Counts{Requests: 1}
		if d.BadSig != nil {
			counts.BadSignatures++
			v.report.fault("account %s: %s: bad signature: %v", d.Account, d.ID, d.BadSig)
		}
		before := events[event{d.Account, d.ID}]
		if before == nil {
			before = &seen{body: d.Body}
			events[event{d.Account, d.ID}] = before
		} else {
			counts.Retried++
		}
		if before.body != d.Body {
			counts.Differing++
			v.report.fault("account %s: %s: other bytes than at first", d.Account, d.ID)
		}
		switch {
		case !d.OK():
		case before.taken:
			counts.Duplicates++
		default:
			before.taken = true
			s := v.storyOf(lane{d.Account, d.Schema, d.Record})
			s.taken = append(s.taken, d)
		}
		v.count(d.Account, counts)
	}
}

// compare matches one lane by the bytes of its events.
func (v *verification) compare(l lane, s *story) {
	matched, absent, extra := s.match()
	counts := Counts{Expected: len(s.expected), Delivered: len(matched)}
	v.report.Schemas[l.schema] += len(matched)
	for _, m := range matched {
		if !m.expected.CommittedAt.IsZero() {
			class := v.terms.Class(l.account)
			v.samples[class] = append(v.samples[class], m.taken.Answered.Sub(m.expected.CommittedAt))
		}
	}
	counts.OrderViolations = outOfOrder(expectedBodies(s.expected), takenBodies(s.taken), len(matched))
	if counts.OrderViolations > 0 {
		v.report.fault("account %s: %s %s: %d events out of order", l.account, l.schema, l.record, counts.OrderViolations)
	}
	v.pair(l, &counts, absent, extra)
	v.count(l.account, counts)
}

// match is an expected event and the delivery of its bytes.
type match struct {
	expected carrier.Expected
	taken    Delivery
}

// match assigns to each delivery the first remaining expected event with its bytes. If
// fewer came than were expected with the same bytes, match takes those that may expire as
// the missing ones.
func (s *story) match() (matched []match, absent []carrier.Expected, extra []Delivery) {
	short := map[sum]int{}
	for _, e := range s.expected {
		short[e.Body]++
	}
	for _, d := range s.taken {
		short[d.Body]--
	}
	left := map[sum][]carrier.Expected{}
	for _, e := range s.expected {
		if e.MayExpire && short[e.Body] > 0 {
			short[e.Body]--
			absent = append(absent, e)
			continue
		}
		left[e.Body] = append(left[e.Body], e)
	}
	for _, d := range s.taken {
		candidates := left[d.Body]
		if len(candidates) == 0 {
			extra = append(extra, d)
			continue
		}
		matched = append(matched, match{candidates[0], d})
		left[d.Body] = candidates[1:]
	}
	for _, e := range s.expected {
		if rest := left[e.Body]; len(rest) > 0 && rest[0].Seq == e.Seq {
			left[e.Body] = rest[1:]
			absent = append(absent, e)
		}
	}
	return matched, absent, extra
}

// pair distinguishes a wrong body from a missing and an unexpected event.
func (v *verification) pair(l lane, counts *Counts, absent []carrier.Expected, extra []Delivery) {
	for _, d := range extra {
		i := slices.IndexFunc(absent, func(e carrier.Expected) bool { return e.Type == d.Type })
		if i < 0 {
			counts.Unexpected++
			v.report.fault("account %s: %s: unexpected %s of %s %s", l.account, d.ID, d.Type, l.schema, l.record)
			continue
		}
		counts.WrongBodies++
		v.report.fault("account %s: %s: wrong body for %s of %s %s (ledger %d)", l.account, d.ID, d.Type, l.schema, l.record, absent[i].Seq)
		absent = slices.Delete(absent, i, i+1)
	}
	for _, e := range absent {
		switch {
		case e.MayExpire:
			counts.Expired++
			v.report.Absent = append(v.report.Absent, e)
		case v.terms.MayWait(l.account):
			counts.Waiting++
		default:
			counts.Lost++
			v.report.fault("account %s: lost %s of %s %s (ledger %d)", l.account, e.Type, l.schema, l.record, e.Seq)
		}
	}
}

func expectedBodies(events []carrier.Expected) []sum {
	bodies := make([]sum, len(events))
	for i, e := range events {
		bodies[i] = e.Body
	}
	return bodies
}

func takenBodies(deliveries []Delivery) []sum {
	bodies := make([]sum, len(deliveries))
	for i, d := range deliveries {
		bodies[i] = d.Body
	}
	return bodies
}
