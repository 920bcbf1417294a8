package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"walhook/outbox/address"
)

// natsConn keeps one connection to the servers of a URL, which all feeds of that URL share.
// It connects by itself, again and again, and to another server where no stream answers.
type natsConn struct {
	natsOptions
	servers []*url.URL // of the URL
	file    string     // of credentials; "" for none
	wanted  chan struct{}
	end     context.CancelFunc
	ended   chan struct{} // closed once run has returned

	mu      sync.Mutex
	session *natsSession // nil while there is no connection
	last    error        // why there is none
	tried   int          // times that connecting failed
	more    []*url.URL   // servers that the cluster told of
	changed chan struct{}
	waiting map[*natsPublication]struct{} // in flight
	acked   map[string]string             // a subject that a stream acknowledged last, by the feed's prefix
	used    time.Time
}

// natsPublication is one event in flight.
type natsPublication struct {
	prefix  string // the feed's
	subject string
	session *natsSession
	failed  chan error // of one error at most
}

const (
	// The wait between two times of connecting: it doubles. Who wants the connection does
	// not wait longer than the first one.
	natsWaitMin = 250 * time.Millisecond
	natsWaitMax = 5 * time.Second

	// natsDoubt is how long, after a publication that no stream answered, walhook stays with
	// a server of several on which no stream answers: it may be cut off from the others.
	natsDoubt = 3 * time.Second
	// natsDoubtAsk is how long the streams then have to answer a question about themselves.
	natsDoubtAsk = 2 * time.Second

	// natsIdle is how long a connection that nobody uses stays open.
	natsIdle = 10 * time.Minute
)

var (
	errNATSConnecting = errors.New("connecting")
	errNATSURL        = errors.New("the feed's URL cannot be used")
	errNATSLeft       = errors.New("no stream answered through this server: walhook goes to another one of the cluster")
	errNATSInbox      = errors.New("the user may not subscribe to _INBOX.>, so that no acknowledgement arrives")
	errNATSRotated    = errors.New("the file of --nats-credentials has changed: walhook signs in again")
)

// newNATSConn begins to connect. It waits for nothing.
func newNATSConn(o *natsOptions, text string) (*natsConn, error) {
	servers, err := address.Servers(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNATSURL, err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // until close
	c := &natsConn{
		natsOptions: *o, servers: servers, file: credentialsFor(o.config.NATSCredentials, text),
		wanted: make(chan struct{}, 1), end: cancel, ended: make(chan struct{}),
		last: errNATSConnecting, changed: make(chan struct{}), waiting: map[*natsPublication]struct{}{}, acked: map[string]string{}, used: time.Now(),
	}
	go c.run(ctx)
	return c, nil
}

// close ends the connection, and what is in flight on it.
func (c *natsConn) close() {
	c.end()
	<-c.ended
}

// run connects until ctx ends.
func (c *natsConn) run(ctx context.Context) {
	defer close(c.ended)
	var closing sync.WaitGroup
	defer closing.Wait()
	var avoid *url.URL // the server that was left
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		s, err := c.connect(ctx, avoid)
		if err != nil {
			c.isDown(nil, err)
			failures++
			c.pause(ctx, began, failures)
			continue
		}
		c.isUp(s)
		select {
		case <-s.over:
		case <-s.leave:
		case <-ctx.Done():
		}
		acked := c.isDown(s, s.nc.LastError())
		closing.Go(s.nc.Close) // which may wait for a write
		avoid = s.server
		if failures++; acked {
			failures = 0
		}
		c.pause(ctx, began, failures)
	}
}

// connect tries each server once, in any order, and the one to avoid last. Its error is of
// the server that says most.
func (c *natsConn) connect(ctx context.Context, avoid *url.URL) (*natsSession, error) {
	servers := c.known()
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	if avoid != nil {
		slices.SortStableFunc(servers, func(a, b *url.URL) int {
			return strings.Compare(strconv.FormatBool(a.Host == avoid.Host), strconv.FormatBool(b.Host == avoid.Host))
		})
	}
	var fault error
	for _, server := range servers {
		s, err := c.open(ctx, natsTarget{server, c.servers[0].Hostname(), c.file}, c.complained)
		if err == nil {
			return s, nil
		}
		if fault == nil || classifyNATSConnection(fault) == failNATSDown {
			fault = fmt.Errorf("connect to %s: %w", server.Host, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fault
}

// known are the servers of the URL, and those that the cluster told of.
func (c *natsConn) known() []*url.URL {
	c.mu.Lock()
	defer c.mu.Unlock()
	servers := slices.Clone(c.servers)
	for _, one := range c.more {
		if !slices.ContainsFunc(servers, func(u *url.URL) bool { return u.Host == one.Host }) {
			servers = append(servers, one)
		}
	}
	return servers
}

// pause waits before the next time: less where somebody waits for the connection.
func (c *natsConn) pause(ctx context.Context, began time.Time, failures int) {
	least := natsWaitMin + rand.N(natsWaitMin)
	timer := time.NewTimer(least - time.Since(began))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	timer.Reset(min(least<<min(max(failures, 1)-1, 10), natsWaitMax) - time.Since(began))
	select {
	case <-timer.C:
	case <-c.wanted:
	case <-ctx.Done():
	}
}

func (c *natsConn) isUp(s *natsSession) {
	var more []*url.URL
	for _, text := range s.nc.DiscoveredServers() {
		if u, err := url.Parse(text); err == nil {
			more = append(more, u)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.last = s, nil
	if len(more) > 0 {
		c.more = more
	}
	c.signalLocked()
}

// isDown fails what is in flight: nobody will acknowledge it on this connection. It says
// whether a stream answered on the connection that ended, which is nil for one that failed.
func (c *natsConn) isDown(s *natsSession, err error) (acked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != nil {
		err, acked = cmp.Or(s.cause, err, nats.ErrDisconnected), s.acked
		s.undoubtLocked()
	} else {
		c.tried++
	}
	c.session, c.last = nil, err
	for one := range c.waiting {
		one.failLocked(err)
	}
	c.signalLocked()
	return acked
}

func (c *natsConn) signalLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (p *natsPublication) failLocked(err error) {
	select {
	case p.failed <- err:
	default:
	}
}

// complained takes an error of the server: a permission fails what it is about, and the
// refusal of credentials becomes the reason of the end that follows.
func (c *natsConn) complained(s *natsSession, err error) {
	rotated := errors.Is(err, nats.ErrPermissionViolation) && c.rotated(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !errors.Is(err, nats.ErrPermissionViolation):
		if classifyNATSConnection(err) != failNATSDown {
			s.cause = err
		}
	case !strings.Contains(err.Error(), "for Publish to "): // the server says it in its text alone
		c.leaveLocked(s, fmt.Errorf("%w (%w)", errNATSInbox, err))
	default:
		for one := range c.waiting {
			if one.session == s && strings.Contains(err.Error(), strconv.Quote(one.subject)) {
				one.failLocked(err)
			}
		}
	}
	if rotated {
		c.leaveLocked(s, errNATSRotated)
	}
}

// rotated says that the file of credentials is not the one that s signed in with.
func (c *natsConn) rotated(s *natsSession) bool {
	login, err := readNATSLogin(c.file)
	return err == nil && login.sum != s.login
}

// leaveLocked makes run use another connection than s.
func (c *natsConn) leaveLocked(s *natsSession, cause error) {
	if !s.left {
		s.left, s.cause = true, cause
		close(s.leave)
	}
}

// await waits until the connection is up, for a while; at most for one more failure that
// does not pass by itself soon.
func (c *natsConn) await(ctx context.Context, wait time.Duration) (*natsSession, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for before := -1; ; {
		c.mu.Lock()
		s, last, tried, changed := c.session, c.last, c.tried, c.changed
		c.used = time.Now()
		c.mu.Unlock()
		if before < 0 {
			before = tried
		}
		switch {
		case s != nil:
			return s, nil
		case tried > before && classifyNATSConnection(last) != failNATSDown:
			return nil, last
		}
		select {
		case c.wanted <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, last
		case <-c.ended:
			return nil, nats.ErrConnectionClosed
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errAttemptTimeout) {
				return nil, cause
			}
			return nil, last
		}
	}
}

// publish sends a message once, and waits for its acknowledgement.
func (c *natsConn) publish(ctx context.Context, prefix string, message *nats.Msg) (ack *jetstream.PubAck, err error) {
	p, err := c.begin(prefix, message.Subject)
	if err != nil {
		return nil, err
	}
	defer func() {
		c.finish(p, err)
		err = c.explain(ctx, p, err)
	}()
	// Without retries of the library's own: it knows neither the lease nor whose fault it is.
	future, err := p.session.js.PublishMsgAsync(message, jetstream.WithRetryAttempts(0))
	if err != nil {
		return nil, err
	}
	select {
	case ack := <-future.Ok():
		return ack, nil
	case err := <-future.Err():
		return nil, err
	case err := <-p.failed:
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// begin registers a publication, unless the connection is down; finish takes it out.
func (c *natsConn) begin(prefix, subject string) (*natsPublication, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		return nil, c.last
	}
	p := &natsPublication{prefix, subject, c.session, make(chan error, 1)}
	c.waiting[p] = struct{}{}
	return p, nil
}

// finish notes how a publication ended. A server through which no stream answers is left
// after a while.
func (c *natsConn) finish(p *natsPublication, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, p)
	s := p.session
	switch answered, silent := natsAnswered(err); {
	case answered:
		s.acked = true
		s.undoubtLocked()
		if err == nil {
			c.acked[p.prefix] = p.subject
		}
	case silent && s == c.session && len(c.servers)+len(c.more) > 1:
		if s.doubt == nil {
			s.doubt = time.AfterFunc(natsDoubt, func() { c.doubted(s, p.prefix) })
		}
		s.taking = s.taking || !isNoStream(err)
	}
}

// undoubtLocked stays with the server.
func (s *natsSession) undoubtLocked() {
	if s.doubt != nil {
		s.doubt.Stop()
		s.doubt, s.taking = nil, false
	}
}

// doubted leaves a server through which no stream answered for a while. Where nobody took
// what was published, as while a stream has no leader, it stays if the feed's streams answer
// now: nothing may have been published since, because the breaker is open. A leader that is
// cut off takes events, and answers questions, but acknowledges nothing.
func (c *natsConn) doubted(s *natsSession, prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.taking {
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), natsDoubtAsk)
		reached := len(askTaken(ctx, s.js, prefix)) > 0
		cancel()
		c.mu.Lock()
		if reached && !s.taking {
			s.undoubtLocked()
		}
	}
	if s.doubt != nil {
		c.leaveLocked(s, errNATSLeft)
	}
}

// idle says that nobody has used the connection for long.
func (c *natsConn) idle(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.used) > natsIdle && len(c.waiting) == 0
}
