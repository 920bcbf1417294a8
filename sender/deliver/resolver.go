package deliver

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServers tells a name whose own servers are silent or in trouble from name
// servers of this machine that are. A failed lookup looks the same in both cases,
// so it is followed by questions that any working name server answers: for the
// root, and for the name that was resolved last.
type nameServers struct {
	// connect is a net.Dialer's DialContext; a test has name servers of its own.
	connect func(ctx context.Context, network, address string) (net.Conn, error)

	mu    sync.Mutex
	known string     // the name that an address was last answered for; guarded by mu
	trial *nameTrial // the one that is going on; nil for none; guarded by mu
}

// nameTrial is one round of questions, which everybody waits for whose lookup
// failed meanwhile.
type nameTrial struct {
	done  chan struct{}
	works bool // once done is closed
}

// nameTrialTime is how long the name servers have to answer what they know.
const nameTrialTime = 2 * time.Second

// resolver resolves the names of endpoints.
func (n *nameServers) resolver() *net.Resolver {
	return n.observing(func(answer nameAnswer) {
		if answer.name == "" {
			return
		}
		n.mu.Lock()
		n.known = answer.name
		n.mu.Unlock()
	})
}

// work says whether the name servers answer at all. The end of ctx does not end
// it: others wait for the same answer.
func (n *nameServers) work(ctx context.Context) bool {
	n.mu.Lock()
	if t := n.trial; t != nil {
		n.mu.Unlock()
		<-t.done
		return t.works
	}
	t := &nameTrial{done: make(chan struct{})}
	n.trial = t
	known := n.known
	n.mu.Unlock()

	t.works = n.ask(context.WithoutCancel(ctx), known)
	n.mu.Lock()
	n.trial = nil
	n.mu.Unlock()
	close(t.done)
	return t.works
}

// ask is true as soon as one of the questions is answered as a name server that
// works would.
func (n *nameServers) ask(ctx context.Context, known string) bool {
	ctx, cancel := context.WithTimeout(ctx, nameTrialTime)
	defer cancel()
	var works atomic.Bool // a question that was given up may still be answered
	resolver := n.observing(func(answer nameAnswer) {
		if answer.works {
			works.Store(true)
			cancel()
		}
	})
	var asked sync.WaitGroup
	// The answers are of no interest: it was observing whether there were any.
	asked.Go(func() { _, _ = resolver.LookupNS(ctx, ".") })
	if known != "" {
		asked.Go(func() { _, _ = resolver.LookupIPAddr(ctx, known) })
	}
	asked.Wait()
	return works.Load()
}

// observing is a resolver whose answers onAnswer is called with. It is Go's own: the
// C library's would take a host for an address in forms that Go does not.
func (n *nameServers) observing(onAnswer func(nameAnswer)) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := n.connect(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if udp, ok := conn.(*net.UDPConn); ok {
			return &observedUDP{UDPConn: udp, onAnswer: onAnswer}, nil // packets, as the resolver sees by the type
		}
		return &observedTCP{Conn: conn, onAnswer: onAnswer}, nil
	}}
}

// nameAnswer is what one message of a name server shows.
type nameAnswer struct {
	works bool   // it resolved a name, or knows that there is none
	name  string // that it has an address for; "" for none
}

// answerIn reads the message that a name server sent (RFC 1035, 4.1).
func answerIn(message []byte) (answer nameAnswer) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || !h.Response || h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError {
		return answer
	}
	question, err := p.Question()
	if err != nil || p.SkipAllQuestions() != nil {
		return answer
	}
	_, err = p.AnswerHeader()
	// One that does not ask others for us, and does not know, is of no use.
	answer.works = err == nil || h.RCode == dnsmessage.RCodeNameError || h.RecursionAvailable || h.Authoritative
	if err == nil && (question.Type == dnsmessage.TypeA || question.Type == dnsmessage.TypeAAAA) {
		answer.name = question.Name.String()
	}
	return answer
}

type observedUDP struct {
	*net.UDPConn
	onAnswer func(nameAnswer)
}

func (c *observedUDP) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil {
		c.onAnswer(answerIn(b[:n]))
	}
	return n, err
}

// observedTCP has one message on each connection, after its length in two bytes.
type observedTCP struct {
	net.Conn
	onAnswer func(nameAnswer)
	read     []byte // of the message and its length; nil once it is whole
	whole    bool
}

func (c *observedTCP) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.whole {
		return n, err
	}
	c.read = append(c.read, b[:n]...)
	if r := c.read; len(r) >= 2 && len(r)-2 >= int(r[0])<<8|int(r[1]) {
		c.onAnswer(answerIn(r[2:]))
		c.read, c.whole = nil, true
	}
	return n, err
}
