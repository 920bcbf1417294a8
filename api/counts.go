package api

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox/admin"
)

// attemptCounts are the attempts of the last 24 hours, counted.
type attemptCounts struct {
	From      time.Time   `json:"from"`
	To        time.Time   `json:"to"`
	Delivered int64       `json:"delivered"`
	Failed    int64       `json:"failed"`
	AtLeast   bool        `json:"at_least,omitempty" doc:"there are more, which are not counted yet: ask again in some seconds"`
	Steps     []countStep `json:"steps" nullable:"false" doc:"the same by five minutes, the oldest first; without those that have none"`
}

// countStep is how many attempts began within five minutes.
type countStep struct {
	From      time.Time `json:"from"`
	Delivered int64     `json:"delivered"`
	Failed    int64     `json:"failed"`
}

const (
	countStepLength = 5 * time.Minute
	countSteps      = int64(24 * time.Hour / countStepLength)

	// One statement reads countRows rows at most, and one call begins none after countFor.
	// What is left is counted after the answer, for countAfter at most, by one goroutine of
	// the process, which rests as long as each statement took.
	countRows  = 20_000
	countFor   = 100 * time.Millisecond
	countAfter = 30 * time.Second

	// An attempt is stored when it is over, so the counts of the newest steps rise. What
	// is stored later than countSettled, after an outage, is in after countKept.
	countSettled = 15 * time.Minute
	countKept    = time.Hour

	// countRemember bounds for how many endpoints counts are kept, each 14 KiB at most.
	countRemember = 1000
)

func (s *subscriptions) registerCounts(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks"
	const newest = "An attempt counts once it is over. The counts of a webhook with very many attempts are complete after a few calls."
	huma.Register(routes, operation("count-attempts", http.MethodGet, path+"/attempts/counts", "Count the attempts of the last 24 hours",
		"Of all webhooks of the account, the 100 that were deleted last included. "+newest), handled(s, s.countAccount))
	huma.Register(routes, operation("count-webhook-attempts", http.MethodGet, path+"/{webhook_id}/attempts/counts", "Count the attempts of the last 24 hours to a webhook",
		newest), handled(s, s.countWebhook))
}

func (s *subscriptions) countAccount(ctx context.Context, in *AccountInput) (*answer[attemptCounts], error) {
	endpoints, err := s.cfg.Admin.OwnEndpoints(ctx, in.AccountID)
	if err != nil {
		return nil, err
	}
	return s.countOf(ctx, endpoints)
}

func (s *subscriptions) countWebhook(ctx context.Context, in *WebhookInput) (*answer[attemptCounts], error) {
	w, err := s.kept(ctx, in)
	if err != nil {
		return nil, err
	}
	return s.countOf(ctx, []int64{w.Endpoint})
}

func (s *subscriptions) countOf(ctx context.Context, endpoints []int64) (*answer[attemptCounts], error) {
	counted, err := s.counts.of(ctx, endpoints)
	if err != nil {
		return nil, err
	}
	return answerOf(counted), nil
}

// attemptCounter remembers how many attempts there were in each step of time, so that
// who looks often has only the newest counted again.
type attemptCounter struct {
	count func(ctx context.Context, ranges []admin.CountRange, step time.Duration, most int64) ([]admin.AttemptCount, *admin.AttemptCount, error)
	now   func() time.Time
	rows  int64         // that one statement reads at most
	until time.Duration // a call begins no statement after that

	after  time.Duration // counting continues for so long after an answer; 0 for not
	behind atomic.Bool   // somebody's counting continues

	mu    sync.Mutex
	known map[int64]map[int64]stepCount // by endpoint and step
}

type stepCount struct {
	delivered, failed int64
	at                time.Time // when it was counted
	part              bool      // there are more
	full              bool      // a part, and as many as one statement reads
}

func newAttemptCounter(a *admin.Admin) *attemptCounter {
	return &attemptCounter{count: a.CountAttempts, now: time.Now, rows: countRows, until: countFor, after: countAfter, known: map[int64]map[int64]stepCount{}}
}

// of counts the attempts of endpoints, as far as it gets in its time.
func (c *attemptCounter) of(ctx context.Context, endpoints []int64) (attemptCounts, error) {
	began := c.now()
	last := began.Unix() / int64(countStepLength/time.Second)
	first := last - countSteps + 1
	for {
		through, err := c.step(ctx, endpoints, first, last, began)
		if err != nil {
			return attemptCounts{}, err
		}
		if through {
			break
		}
		if c.now().Sub(began) > c.until {
			c.continueLater(endpoints, first, last, began)
			break
		}
	}
	return c.sum(endpoints, first, last, began), nil
}

// step counts once, and reports whether nothing is left for who came at began.
func (c *attemptCounter) step(ctx context.Context, endpoints []int64, first, last int64, began time.Time) (through bool, err error) {
	ranges := c.missing(endpoints, first, last, began)
	if len(ranges) == 0 {
		return true, nil
	}
	now := c.now()
	counts, ended, err := c.count(ctx, ranges, countStepLength, c.rows)
	if err != nil {
		return false, err
	}
	c.learn(ranges, counts, ended, last, now)
	return ended == nil, nil
}

// continueLater counts what a call had no time for, so that the next one knows more. An
// error ends it: the next call sees it, too.
func (c *attemptCounter) continueLater(endpoints []int64, first, last int64, began time.Time) {
	if c.after == 0 || !c.behind.CompareAndSwap(false, true) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.after)
	go func() {
		defer c.behind.Store(false)
		defer cancel()
		for {
			start := time.Now()
			if through, err := c.step(ctx, endpoints, first, last, began); through || err != nil {
				return
			}
			select {
			case <-time.After(time.Since(start)):
			case <-ctx.Done():
				return
			}
		}
	}()
}

// missing are the steps that are not known yet, or not for good, as ranges of each
// endpoint. What was counted since began is known.
func (c *attemptCounter) missing(endpoints []int64, first, last int64, began time.Time) (ranges []admin.CountRange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, endpoint := range endpoints {
		known := c.known[endpoint]
		for end := last; end >= first; end-- {
			if known[end].holds(end, began) {
				continue
			}
			begin := end
			for begin > first && !known[begin-1].holds(begin-1, began) {
				begin--
			}
			ranges = append(ranges, admin.CountRange{Endpoint: endpoint, From: stepTime(begin), To: stepTime(end + 1)})
			end = begin
		}
	}
	return ranges
}

// holds reports whether a step need not be counted again by who asks at began.
func (s stepCount) holds(step int64, began time.Time) bool {
	if s.at.IsZero() || s.part && !s.full {
		return false
	}
	settled := s.at.Sub(stepTime(step+1)) > countSettled && began.Sub(s.at) < countKept
	return settled || !s.at.Before(began)
}

func stepTime(step int64) time.Time {
	return time.Unix(step*int64(countStepLength/time.Second), 0).UTC()
}

// learn keeps what was counted at an instant.
func (c *attemptCounter) learn(ranges []admin.CountRange, counts []admin.AttemptCount, ended *admin.AttemptCount, last int64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range ranges {
		if ended != nil && i > ended.Range {
			break
		}
		known := c.known[r.Endpoint]
		if known == nil {
			for forgotten := range c.known {
				if len(c.known) < countRemember {
					break
				}
				delete(c.known, forgotten)
			}
			known = map[int64]stepCount{}
			c.known[r.Endpoint] = known
		}
		for step := range known {
			if step <= last-countSteps {
				delete(known, step)
			}
		}
		for step := r.To.Add(-time.Second).Unix() / int64(countStepLength/time.Second); !stepTime(step).Before(r.From); step-- {
			if ended != nil && i == ended.Range && step <= ended.Step {
				break
			}
			known[step] = stepCount{at: now}
		}
	}
	for _, n := range counts {
		part := ended != nil && n.Range == ended.Range && n.Step == ended.Step
		known := c.known[ranges[n.Range].Endpoint]
		if was := known[n.Step]; part && !was.full && was.delivered+was.failed > n.Delivered+n.Failed {
			continue // it is known better from before
		}
		known[n.Step] = stepCount{delivered: n.Delivered, failed: n.Failed, at: now, part: part, full: part && n.Delivered+n.Failed >= c.rows}
	}
}

// sum adds what is known. began is when the asker came.
func (c *attemptCounter) sum(endpoints []int64, first, last int64, began time.Time) attemptCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := attemptCounts{From: stepTime(first), To: utc(began), Steps: []countStep{}}
	for step := first; step <= last; step++ {
		of := countStep{From: stepTime(step)}
		for _, endpoint := range endpoints {
			n := c.known[endpoint][step]
			of.Delivered += n.delivered
			of.Failed += n.failed
			all.AtLeast = all.AtLeast || n.at.IsZero() || n.part
		}
		if of.Delivered+of.Failed > 0 {
			all.Steps = append(all.Steps, of)
		}
		all.Delivered += of.Delivered
		all.Failed += of.Failed
	}
	return all
}
