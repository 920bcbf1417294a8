package outboxtest

import (
	"errors"
	"strings"
	"time"

	"walhook/outbox"
)

func endpointCases() []testCase {
	return []testCase{
		{"endpoints are read as they stand now, those that are there", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(2)
			changed := w.SetURL(w.TB, b.ID, "https://example.com/new")
			got, err := s.Endpoints(w.ctx, []int64{b.ID, a.ID, a.ID, a.ID + 32*100})
			w.must(err)
			if len(got) != 2 {
				w.Fatalf("read %+v, want each of two once", got)
			}
			for _, e := range got {
				want := a
				if e.ID == b.ID {
					want = changed
				}
				if e.ID != want.ID || e.Account != want.Account || e.URL != want.URL || e.State != want.State || e.Revision != want.Revision || e.SendFrom() != want.SendFrom() {
					w.Errorf("endpoint is %+v, want %+v", e, want)
				}
			}
		}},
		{"a URL that is taken away ends the feed, and another one begins it", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			old := w.events(a, 1)
			w.SetURL(w.TB, a.ID, "")
			if now := w.endpointNow(s, a.ID); now.State != outbox.EndpointCleared || now.SendFrom() <= old[0].ID {
				w.Errorf("the endpoint is %s and sends from %d on, after event %d", now.State, now.SendFrom(), old[0].ID)
			}
			w.SetURL(w.TB, a.ID, "https://example.com/again")
			young := w.events(a, 1)
			if now := w.endpointNow(s, a.ID); now.State != outbox.EndpointActive || now.SendFrom() <= old[0].ID || now.SendFrom() > young[0].ID {
				w.Errorf("the endpoint is %s and sends from %d on, between events %d and %d", now.State, now.SendFrom(), old[0].ID, young[0].ID)
			}
		}},
		{"a change of an endpoint is reported to the holder of its shard, and to nobody else", changesAreReported},
		{"a change is reported to whoever asks with the instant of the last answer", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			_, since, err := s.EndpointsChanged(w.ctx, time.Now())
			w.must(err)
			for range 3 {
				changed := w.SetURL(w.TB, a.ID, "https://example.com/new")
				reported, now, err := s.EndpointsChanged(w.ctx, since)
				w.must(err)
				if newest(reported, a.ID).Revision != changed.Revision {
					w.Errorf("reported %+v, want revision %d", reported, changed.Revision)
				}
				since = now
			}
		}},
		{"an endpoint that a settlement disables is a change", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1)
			_, since, err := s.EndpointsChanged(w.ctx, time.Now())
			w.must(err)
			w.settle(s, gone(e[0], "gone"))
			reported, _, err := s.EndpointsChanged(w.ctx, since)
			w.must(err)
			if newest(reported, a.ID).Revision != a.Revision+1 {
				w.Errorf("reported %+v, want revision %d", reported, a.Revision+1)
			}
		}},
		{"an endpoint is held where nothing may be sent to its host", func(w *world) {
			a, b := w.endpoint(1), w.endpoint(2)
			w.SetURL(w.TB, b.ID, "https://forbidden.example.com/")
			s, err := w.Join(w.ctx, "careful", time.Minute, func(url string) error {
				if strings.Contains(url, "forbidden") {
					return errors.New("it is in no allowed network")
				}
				return nil
			})
			w.must(err)
			_, _, err = s.Rebalance(w.ctx)
			w.must(err)
			held := holder{s, "careful"}
			// It is reported, although it did not change after that instant.
			reported, _, err := s.EndpointsChanged(w.ctx, time.Now().Add(time.Hour))
			w.must(err)
			if newest(reported, b.ID).ID != b.ID || newest(reported, a.ID).ID != 0 {
				w.Errorf("reported %+v, want endpoint %d alone", reported, b.ID)
			}
			if e := w.endpointNow(held, b.ID); e.State == outbox.EndpointActive || !e.Unreadable || !strings.Contains(e.Reason, "no allowed network") {
				w.Errorf("the endpoint is %s: %s", e.State, e.Reason)
			}
			if e := w.endpointNow(held, a.ID); e.State != outbox.EndpointActive || e.Unreadable {
				w.Errorf("the other is %s: %s", e.State, e.Reason)
			}
		}},
		{"a sender is asked to confirm a change until it does", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			_, since, err := s.EndpointsChanged(w.ctx, time.Now())
			w.must(err)
			awaited := w.Await(w.TB, a.ID)
			w.SetURL(w.TB, b.ID, "https://example.com/new")
			reported, _, err := s.EndpointsChanged(w.ctx, since)
			w.must(err)
			if r := newest(reported, a.ID); !r.Confirm || r.Revision != awaited.Revision || newest(reported, b.ID).Confirm {
				w.Errorf("reported %+v, want a confirmation of endpoint %d in revision %d", reported, a.ID, awaited.Revision)
			}
			if got := w.Confirmed(w.TB, a.ID); got == awaited.Revision {
				w.Error("confirmed before anybody did")
			}
			w.must(s.Confirm(w.ctx, reported))
			if got := w.Confirmed(w.TB, a.ID); got != awaited.Revision {
				w.Errorf("confirmed is revision %d, want %d", got, awaited.Revision)
			}
			reported, _, err = s.EndpointsChanged(w.ctx, since)
			w.must(err)
			if newest(reported, a.ID).Confirm {
				w.Error("it is asked for again")
			}
		}},
	}
}

// newest returns the highest reported revision of an endpoint; its ID is 0 when there
// is none.
func newest(reported []outbox.EndpointRevision, endpoint int64) (newest outbox.EndpointRevision) {
	for _, r := range reported {
		if r.ID == endpoint && r.Revision >= newest.Revision {
			newest = r
		}
	}
	return newest
}

func changesAreReported(w *world) {
	first, _ := w.owner()
	second := w.member()
	mine, other := w.endpoint(3), w.endpoint(20)
	w.rebalance(first)
	w.must(first.Release(w.ctx, []outbox.Shard{{ID: 20}}))
	if gained, _ := w.rebalance(second); len(gained.Shards) != 1 {
		w.Fatalf("gained %v, want the one shard that was released", gained.Shards)
	}
	since := time.Now()
	w.SetURL(w.TB, mine.ID, "https://example.com/1")
	w.SetURL(w.TB, other.ID, "https://example.com/2")
	for _, c := range []struct {
		who         holder
		its, others int64
	}{{first, mine.ID, other.ID}, {second, other.ID, mine.ID}} {
		reported, _, err := c.who.EndpointsChanged(w.ctx, since)
		w.must(err)
		if newest(reported, c.its).ID == 0 || newest(reported, c.others).ID != 0 {
			w.Errorf("%s is notified of %+v, want endpoint %d alone", c.who.name, reported, c.its)
		}
	}
}
