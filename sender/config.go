package sender

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"walhook/sender/deliver"
)

// Config says how to deliver. The bytes are chosen for a process of 150 MiB:
// 32 MiB of bodies of a kilobyte keep the most attempts in flight supplied for
// seconds, and 256 KiB hold as many of them as LaneEvents does. The zero Config is usable: each zero value means
// the default that its field names.
type Config struct {
	// Name distinguishes this process from other senders, in the outbox and its
	// logs. "" means "sender".
	Name string
	// HTTP says how events are sent to URLs. Its MayBegin is the sender's to set,
	// and a MaxIdle of zero means MaxInFlight.
	HTTP deliver.Config

	// RetrySchedule holds the delay after the first failed attempt, the
	// second and so on; the attempt after the last delay is the last. Nil
	// means 5 s, 30 s, 2 m, 10 m, 30 m, 1 h, 2 h, 4 h, 8 h, 16 h. Each delay
	// varies by ±20 %.
	RetrySchedule []time.Duration
	// DisableAfter is how long an endpoint may only fail before it is
	// disabled. Zero means 5 days.
	DisableAfter time.Duration

	Window      int           // most attempts in flight for one endpoint; zero means 64
	MaxInFlight int           // most attempts in flight in all; zero means 4096
	LaneEvents  int           // events buffered for one endpoint; zero means 256
	LaneBytes   int           // bytes of bodies buffered for one endpoint; zero means 256 KiB
	BufferBytes int           // bytes of bodies buffered in all, beyond which each lane still gets a little; zero means 32 MiB
	Lease       time.Duration // how long shards stay ours without word of us; zero means 10 s

	// OnAttempt, when not nil, is called after each attempt, by the goroutine
	// that everything waits for: it must not block.
	OnAttempt func(AttemptReport)
}

// AttemptReport is one attempt as a person watches it. It holds no URL, secret
// or payload.
type AttemptReport struct {
	Account     string
	Endpoint    int64
	Schema      string
	Type        string
	WebhookID   string
	Attempt     int // 1 for the first
	Status      int // 0 for none
	Outcome     string
	Reason      string
	At          time.Time // when it began
	Duration    time.Duration
	CommittedAt time.Time // by the source
	AppendedAt  time.Time // to the log
	ReadAt      time.Time // from the log, by this sender
}

// defaultSchedule is that of the contract's delivery policy.
var defaultSchedule = []time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour,
}

// Validate lists every fault of c, joined, or returns nil.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"disable after", c.DisableAfter}, {"lease", c.Lease},
	} {
		if d.value < 0 {
			fault("%s %v: want a positive duration", d.name, d.value)
		}
	}
	for i, d := range c.RetrySchedule {
		if d <= 0 {
			fault("retry schedule, delay %d: %v: want a positive duration", i+1, d)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"window", c.Window}, {"max in flight", c.MaxInFlight}, {"lane events", c.LaneEvents},
		{"lane bytes", c.LaneBytes}, {"buffer bytes", c.BufferBytes},
	} {
		if n.value < 0 {
			fault("%s %d: want a positive number", n.name, n.value)
		}
	}
	faults = append(faults, c.HTTP.Validate())
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "sender")
	c.DisableAfter = cmp.Or(c.DisableAfter, 5*24*time.Hour)
	c.Window = cmp.Or(c.Window, 64)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 4096)
	c.LaneEvents = cmp.Or(c.LaneEvents, 256)
	c.LaneBytes = cmp.Or(c.LaneBytes, 256<<10)
	c.BufferBytes = cmp.Or(c.BufferBytes, 32<<20)
	c.Lease = cmp.Or(c.Lease, 10*time.Second)
	c.HTTP.MaxIdle = cmp.Or(c.HTTP.MaxIdle, c.MaxInFlight)
	c.HTTP = c.HTTP.WithDefaults()
	if c.RetrySchedule == nil {
		c.RetrySchedule = slices.Clone(defaultSchedule)
	}
	return c
}
