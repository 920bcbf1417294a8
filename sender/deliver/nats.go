package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"walhook/outbox"
)

// natsFeeds publishes events to streams of NATS JetStream. An event is delivered when its
// stream has acknowledged it. It is safe for many goroutines.
type natsFeeds struct {
	natsOptions

	mu    sync.Mutex
	conns map[string]*natsConn // by URL; guarded by mu
}

func newNATSFeeds(c *Config, d *dialer) *natsFeeds {
	return &natsFeeds{natsOptions: natsOptions{c, d, &d.identities}, conns: map[string]*natsConn{}}
}

// Deliver makes one attempt. See [Destination].
func (f *natsFeeds) Deliver(ctx context.Context, e outbox.Endpoint, event outbox.Event) Result {
	at := time.Now()
	ack, err := f.publish(ctx, &e, &event, at.Add(f.config.AttemptTimeout))
	var r Result
	switch {
	case err != nil:
		class := f.classify(ctx, err)
		r = classifyFailure(class)
		r.Detail = clip(string(class) + ": " + err.Error())
	case ack.Duplicate:
		r = Result{Outcome: Delivered, Reason: natsDuplicate, Detail: clip("stream " + ack.Stream + " had it already")}
	default:
		r = Result{Outcome: Delivered, Reason: natsAcked}
	}
	r.At, r.Duration = at, time.Since(at)
	return r
}

// errSubject says that a subject is longer than servers take.
var errSubject = errors.New("the event's subject is too long for NATS")

func (f *natsFeeds) classify(ctx context.Context, err error) failure {
	switch {
	case errors.Is(err, errLeaseOver):
		return failLease
	case errors.Is(err, errAttemptTimeout):
		return failNATSTimeout
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return failShutdown
	case errors.Is(err, errNATSURL):
		return failURL
	case errors.Is(err, errSubject):
		return failNATSTooLarge
	}
	return classifyNATS(err)
}

const (
	// natsElection is how long an attempt waits for a stream that does not answer: while a
	// stream changes its leader, it has none. Who is asked to hand over does so within that.
	natsElection     = 2 * time.Second
	natsElectionStep = 200 * time.Millisecond
)

// publish sends an event and waits for its acknowledgement.
func (f *natsFeeds) publish(ctx context.Context, e *outbox.Endpoint, event *outbox.Event, until time.Time) (ack *jetstream.PubAck, err error) {
	subject := natsSubject(e, event)
	if len(subject) > maxSubject {
		return nil, fmt.Errorf("%w: %d bytes", errSubject, len(subject))
	}
	ctx, cancel := context.WithDeadlineCause(ctx, until, errAttemptTimeout)
	defer cancel()
	conn, err := f.conn(e.URL)
	if err == nil {
		_, err = conn.await(ctx, f.config.ConnectTimeout)
	}
	if err != nil {
		return nil, err
	}
	message := &nats.Msg{Subject: subject, Data: event.Body, Header: nats.Header{
		jetstream.MsgIDHeader: {event.WebhookID}, accountHeader: {headerText(event.Account)},
	}}
	for giveUp := time.Now().Add(natsElection); ; {
		if f.config.MayBegin != nil && !f.config.MayBegin() {
			return nil, errLeaseOver
		}
		if ack, err = conn.publish(ctx, e.SubjectPrefix, message); !isNoStream(err) || time.Now().After(giveUp) {
			return ack, err
		}
		// Nothing was stored, so the event may be published again.
		select {
		case <-time.After(natsElectionStep):
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errAttemptTimeout) {
				return nil, cause
			}
			return nil, err
		}
	}
}

// conn returns the connection to the servers of a URL, which may not be up yet.
func (f *natsFeeds) conn(url string) (*natsConn, error) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for of, conn := range f.conns {
		if of != url && conn.idle(now) {
			delete(f.conns, of)
			conn.end()
		}
	}
	if conn := f.conns[url]; conn != nil {
		return conn, nil
	}
	conn, err := newNATSConn(&f.natsOptions, url)
	if err == nil {
		f.conns[url] = conn
	}
	return conn, err
}

// close ends every connection.
func (f *natsFeeds) close() {
	f.mu.Lock()
	conns := f.conns
	f.conns = map[string]*natsConn{}
	f.mu.Unlock()
	for _, conn := range conns {
		conn.end()
	}
	for _, conn := range conns {
		<-conn.ended
	}
}
