package pooler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Replication says how a pooler handles a replication connection.
type Replication int

// The ways of poolers.
const (
	Refuse Replication = iota // it refuses the startup parameter
	Drop                      // it drops the parameter: the client gets an ordinary session
	Pass                      // it passes the connection on
)

// Options are a pooler's configuration.
type Options struct {
	Transaction bool // lends a session per transaction
	ServerPID   bool // tells the client the process id of a server's session as its own
	Replication Replication
	// Sessions is how many clients have a session at a time; 0 is any number. One more may log
	// in, and its first query is refused, as PgBouncer does after its query_wait_timeout.
	Sessions int
	// Waits has that one wait instead, and without end, as PgBouncer does with a
	// query_wait_timeout of 0 while no other client leaves.
	Waits bool
	// Clients counts those that logged in; nil counts none.
	Clients *atomic.Int64
	// Unreset hands the session of a client that left to the next one as it is, as PgBouncer
	// does with an empty server_reset_query.
	Unreset bool

	// Pick selects the session to lend for the nth transaction, from 0, by its place among
	// the idle ones, the longest idle first; nil lends the one that came back last.
	Pick func(n, idle int) int

	dial pgconn.DialFunc // to the server; nil is the ordinary one
}

// Pooler is a running pooler.
type Pooler struct {
	tb      testing.TB
	server  string // URL
	options Options

	mu      sync.Mutex
	idle    []*pgconn.HijackedConn // the pooler lends the last one first
	clients int                    // that have a session
	lent    int                    // transactions
}

// Start runs a pooler in front of a server until the test ends, and returns its address.
func Start(tb testing.TB, server string, o Options) (address string) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Pooler{tb: tb, server: server, options: o}
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			clients.Go(func() {
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				defer conn.Close()
				_ = p.serve(ctx, conn)
			})
		}
	})
	tb.Cleanup(func() {
		cancel()
		listener.Close()
		clients.Wait()
		for _, session := range p.idle {
			session.Conn.Close()
		}
	})
	return listener.Addr().String()
}

// serve serves one client until it leaves.
func (p *Pooler) serve(ctx context.Context, conn net.Conn) error {
	client := pgproto3.NewBackend(conn, conn)
	start, err := startUp(client, conn)
	if err != nil {
		return err
	}
	fail := func(message string) error {
		client.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08P01", Message: message})
		return errors.Join(client.Flush(), errors.New(message))
	}
	_, replication := start["replication"]
	for name := range start {
		known := slices.Contains([]string{"user", "database", "client_encoding", "datestyle", "timezone", "standard_conforming_strings", "application_name"}, strings.ToLower(name))
		if !known && !(name == "replication" && p.options.Replication != Refuse) {
			return fail("unsupported startup parameter: " + name)
		}
	}
	if p.options.Clients != nil {
		p.options.Clients.Add(1)
	}
	if !p.admit() {
		client.Send(&pgproto3.AuthenticationOk{})
		client.Send(&pgproto3.BackendKeyData{ProcessID: 1 << 30, SecretKey: []byte{1, 2, 3, 4}})
		client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if err := client.Flush(); err != nil {
			return err
		}
		for {
			if _, err := client.Receive(); err != nil {
				return err
			}
			if !p.options.Waits {
				return fail("query_wait_timeout")
			}
		}
	}
	defer p.leave()
	replication = replication && p.options.Replication == Pass
	session, err := p.take(ctx, replication)
	if err != nil {
		return fail("server login failed: " + err.Error())
	}
	client.Send(&pgproto3.AuthenticationOk{})
	for name, value := range session.ParameterStatuses {
		client.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	pid := 1<<30 + rand.Uint32N(1<<30)
	if p.options.ServerPID {
		pid = session.PID
	}
	client.Send(&pgproto3.BackendKeyData{ProcessID: pid, SecretKey: []byte{1, 2, 3, 4}})
	client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err := client.Flush(); err != nil {
		return err
	}
	if p.options.Transaction && !replication {
		p.release(session)
		return p.lend(ctx, client)
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		forward(session, client)
		conn.Close()
	}()
	for {
		message, err := client.Receive()
		if _, over := message.(*pgproto3.Terminate); over && p.options.Unreset {
			_ = session.Conn.SetReadDeadline(time.Now()) // ends forward
			<-back
			_ = session.Conn.SetReadDeadline(time.Time{})
			p.release(session)
			return nil
		} else if err != nil || over {
			session.Conn.Close()
			<-back
			return err
		}
		session.Frontend.Send(message)
		if err := session.Frontend.Flush(); err != nil {
			session.Conn.Close()
			return err
		}
	}
}

// forward sends a client what the server says, until the session ends or its read deadline
// passes. It reads through the session's Frontend, never from its Conn: after a slow write
// pgconn reads in the background, also while the connection is hijacked, and only the
// Frontend gets what it has read.
func forward(session *pgconn.HijackedConn, client *pgproto3.Backend) {
	for {
		message, err := session.Frontend.Receive()
		if err != nil {
			_ = client.Flush()
			return
		}
		client.Send(message)
		if session.Frontend.ReadBufferLen() > 0 {
			continue // more is on its way
		}
		if err := client.Flush(); err != nil {
			return
		}
	}
}

// admit says whether there is a session for one more client.
func (p *Pooler) admit() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.options.Sessions > 0 && p.clients >= p.options.Sessions {
		return false
	}
	p.clients++
	return true
}

func (p *Pooler) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients--
}

func startUp(client *pgproto3.Backend, conn net.Conn) (map[string]string, error) {
	for {
		message, err := client.ReceiveStartupMessage()
		if err != nil {
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.StartupMessage:
			return m.Parameters, nil
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("start-up message %T", m)
		}
	}
}

// lend gives a client a session for each of its transactions.
func (p *Pooler) lend(ctx context.Context, client *pgproto3.Backend) error {
	var session *pgconn.HijackedConn
	defer func() {
		if session != nil {
			session.Conn.Close()
		}
	}()
	for {
		message, err := client.Receive()
		if _, over := message.(*pgproto3.Terminate); err != nil || over {
			return err
		}
		if session == nil {
			if session = p.pick(); session == nil {
				session, err = p.take(ctx, false)
			}
			if err != nil {
				return err
			}
		}
		session.Frontend.Send(message)
		if err := session.Frontend.Flush(); err != nil {
			return err
		}
		switch message.(type) {
		case *pgproto3.Query, *pgproto3.Sync:
		default:
			continue
		}
		for session != nil {
			answer, err := session.Frontend.Receive()
			if err != nil {
				return err
			}
			client.Send(answer)
			ready, over := answer.(*pgproto3.ReadyForQuery)
			if !over {
				continue
			}
			if err := client.Flush(); err != nil {
				return err
			}
			if ready.TxStatus != 'I' {
				break
			}
			p.release(session)
			session = nil
		}
	}
}

// pick takes the idle session that the options select for a transaction; nil if they
// select none.
func (p *Pooler) pick() *pgconn.HijackedConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent++
	if p.options.Pick == nil || len(p.idle) == 0 {
		return nil
	}
	i := p.options.Pick(p.lent-1, len(p.idle))
	session := p.idle[i]
	p.idle = slices.Delete(p.idle, i, i+1)
	return session
}

func (p *Pooler) take(ctx context.Context, replication bool) (*pgconn.HijackedConn, error) {
	p.mu.Lock()
	if last := len(p.idle) - 1; last >= 0 && (p.options.Transaction || p.options.Unreset) && !replication {
		session := p.idle[last]
		p.idle = p.idle[:last]
		p.mu.Unlock()
		return session, nil
	}
	p.mu.Unlock()
	config, err := pgconn.ParseConfig(p.server)
	if err != nil {
		return nil, err
	}
	if replication {
		config.RuntimeParams["replication"] = "database"
	}
	if p.options.dial != nil {
		config.DialFunc = p.options.dial
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return conn.Hijack()
}

func (p *Pooler) release(session *pgconn.HijackedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, session)
}
