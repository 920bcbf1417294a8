package receiver

import (
	"encoding/binary"
	"hash/fnv"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Request is what a behaviour may go by.
type Request struct {
	Account string
	ID      string // the webhook-id
	Count   int    // which request of the account this is, from 1
	Attempt int    // which request with this id this is, from 1
	At      time.Time
}

// Answer is what a receiver does with a request.
type Answer struct {
	Status int // 0 with neither Reset nor Hang is 200
	Header http.Header
	Body   string
	Delay  time.Duration // before anything is answered
	Reset  bool          // drop the connection without an answer
	Hang   bool          // never answer
}

// Behaviour returns the answer to a request. It is called from many goroutines.
type Behaviour func(Request) Answer

// Healthy answers 200 at once.
func Healthy() Behaviour { return Always(Answer{}) }

// Status answers with a status at once.
func Status(code int) Behaviour { return Always(Answer{Status: code}) }

// Always gives the same answer.
func Always(answer Answer) Behaviour { return func(Request) Answer { return answer } }

// Gone answers 410.
func Gone() Behaviour { return Status(http.StatusGone) }

// Hanging takes requests and never answers.
func Hanging() Behaviour { return Always(Answer{Hang: true}) }

// Resetting drops every connection.
func Resetting() Behaviour { return Always(Answer{Reset: true}) }

// Redirect answers 302 to a location.
func Redirect(location string) Behaviour {
	return Always(Answer{Status: http.StatusFound, Header: http.Header{"Location": {location}}})
}

// TooMany answers 429 with a Retry-After of whole seconds.
func TooMany(after time.Duration) Behaviour {
	return Always(Answer{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {strconv.Itoa(int(after.Seconds()))}}})
}

// Slow waits before it answers as another behaviour.
func Slow(delay time.Duration, then Behaviour) Behaviour {
	return func(r Request) Answer {
		answer := then(r)
		answer.Delay += delay
		return answer
	}
}

// After answers as first for the first n requests of an account, and then as then.
func After(n int, first, then Behaviour) Behaviour {
	return func(r Request) Answer {
		if r.Count <= n {
			return first(r)
		}
		return then(r)
	}
}

// During answers as inside for a time, counted from its first request, and as outside
// before and after.
func During(from, until time.Duration, inside, outside Behaviour) Behaviour {
	var once sync.Once
	var began time.Time
	return func(r Request) Answer {
		once.Do(func() { began = r.At })
		if since := r.At.Sub(began); since >= from && since < until {
			return inside(r)
		}
		return outside(r)
	}
}

// Flaky fails the first attempt of a share of the events, in per cent, with one of the
// faults (500 or a reset by default). Otherwise it answers as another behaviour. Seed and
// webhook-id alone decide which events fail.
func Flaky(seed uint64, percent int, then Behaviour, faults ...Answer) Behaviour {
	if len(faults) == 0 {
		faults = []Answer{{Status: http.StatusInternalServerError}, {Reset: true}}
	}
	return func(r Request) Answer {
		chance := hash(seed, r.ID)
		if r.Attempt > 1 || int(chance%100) >= percent {
			return then(r)
		}
		return faults[chance/100%uint64(len(faults))]
	}
}

func hash(seed uint64, text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, seed))
	_, _ = h.Write([]byte(text))
	return h.Sum64() >> 8 // the low bits of FNV depend on few bits of the text
}

// Switch is a behaviour that a test changes while it runs.
type Switch struct{ now atomic.Pointer[Behaviour] }

// NewSwitch begins with a behaviour.
func NewSwitch(first Behaviour) *Switch {
	s := &Switch{}
	s.Set(first)
	return s
}

// Set changes the behaviour for later requests.
func (s *Switch) Set(next Behaviour) { s.now.Store(&next) }

// Behave is the behaviour to pass to a server.
func (s *Switch) Behave(r Request) Answer { return (*s.now.Load())(r) }
