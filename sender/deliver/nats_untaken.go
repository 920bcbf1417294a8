package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// An event that no stream answers may be of a subject that no stream takes, while streams
// take the feed's other ones: then only that subject waits. Everything else counts against
// the feed: no stream, one without a leader, a server that is cut off.

const (
	// natsAskEvery is how long an answer about the streams of a feed counts, and natsAskLater
	// how long none is asked for where there was none: the user may not ask, for example.
	natsAskEvery = 5 * time.Second
	natsAskLater = 15 * time.Second
	natsAskLimit = 500 * time.Millisecond

	// natsAskStreams bounds the streams that are looked at.
	natsAskStreams = 16
)

var errNATSUntaken = errors.New("streams take other subjects of the feed and not this one: let one take it, too")

// natsTaken is what the streams take of a feed's subjects, as JetStream says.
type natsTaken struct {
	done     chan struct{} // closed when the rest is set
	at       time.Time
	subjects []string // with wildcards; nil where some stream did not answer
}

// explain says of a publication that ended with an error whether the event's subject alone is
// to blame: a stream acknowledged another one of the feed, all streams answer, one of them
// takes that other one, and none takes this one.
func (c *natsConn) explain(ctx context.Context, p *natsPublication, err error) error {
	if !isNoStream(err) {
		return err
	}
	c.mu.Lock()
	acked := c.acked[p.prefix]
	c.mu.Unlock()
	if acked == "" {
		return err
	}
	subjects := c.taken(ctx, p.session, p.prefix)
	takes := func(subject string) bool {
		return slices.ContainsFunc(subjects, func(filter string) bool { return takesSubject(filter, subject) })
	}
	if !takes(acked) || takes(p.subject) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.session.undoubtLocked() // all streams answered through it
	return fmt.Errorf("%w: %s", errNATSUntaken, p.subject)
}

// taken are the subjects that streams take of a feed; nil where that is not known. Who asks
// while another one does waits for the same answer.
func (c *natsConn) taken(ctx context.Context, s *natsSession, prefix string) []string {
	c.mu.Lock()
	t := s.taken[prefix]
	if t == nil || t.old() {
		t = &natsTaken{done: make(chan struct{})}
		s.taken[prefix] = t
		c.mu.Unlock()
		asking, cancel := context.WithTimeout(ctx, natsAskLimit)
		t.subjects = askTaken(asking, s.js, prefix)
		cancel()
		t.at = time.Now()
		close(t.done)
		return t.subjects
	}
	c.mu.Unlock()
	select {
	case <-t.done:
		return t.subjects
	case <-ctx.Done():
		return nil
	}
}

func (t *natsTaken) old() bool {
	select {
	case <-t.done:
		if t.subjects == nil {
			return time.Since(t.at) > natsAskLater
		}
		return time.Since(t.at) > natsAskEvery
	default:
		return false
	}
}

// askTaken asks JetStream which streams take something of a feed, and each for its subjects.
func askTaken(ctx context.Context, js jetstream.JetStream, prefix string) []string {
	names := js.StreamNames(ctx, jetstream.WithStreamListSubject(prefix+".>"))
	asked, subjects := 0, []string{}
	for name := range names.Name() {
		if asked++; asked > natsAskStreams {
			return nil
		}
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return nil
		}
		subjects = append(subjects, stream.CachedInfo().Config.Subjects...)
	}
	if names.Err() != nil {
		return nil
	}
	return subjects
}

// takesSubject says whether a stream's subject, which may have wildcards, is that of an event.
func takesSubject(filter, subject string) bool {
	tokens, of := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == ">":
			return i < len(of)
		case i >= len(of) || token != "*" && token != of[i]:
			return false
		}
	}
	return len(tokens) == len(of)
}
