package receiver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// maxBody is more than walhook ever sends (docs/CONTRACT.md §4).
const maxBody = 32 << 20

// pathPrefix comes before the account in a receiver's URLs.
const pathPrefix = "/hooks/"

// Options says how a server behaves. The zero value is healthy for every account and does
// not check signatures.
type Options struct {
	Addr string // "" is a free port of 127.0.0.1

	// Behave returns an account's behaviour at its first request; nil stands for Healthy
	// for all.
	Behave func(account string) Behaviour
	// Secret returns an account's whsec_ secret, once per request. "" counts as a bad
	// signature. With nil the server does not check signatures.
	Secret func(account string) string
	// OnDelivery is called with every request after its end, from many goroutines.
	OnDelivery func(Delivery)
}

// Delivery is one request as a receiver saw it.
type Delivery struct {
	Seq     int // order of arrival at the server, from 1
	Account string
	Path    string    // what follows the account in the URL's path
	ID      string    // webhook-id
	From    string    // the sender's address, without its port
	SentAt  time.Time // when the attempt began, by webhook-timestamp: whole seconds

	Schema string
	Type   string
	Record string // the data's id; "" without data
	Body   [sha256.Size]byte

	Arrived  time.Time
	Answered time.Time
	Status   int   // 0: not answered, or the sender had gone
	BadSig   error // why the signature does not verify; nil if it does
	Attempt  int   // which request with this id this is, from 1
}

// OK reports whether the receiver took the event.
func (d Delivery) OK() bool { return d.Status >= 200 && d.Status < 300 }

// Server is an HTTP receiver for many accounts. Close it.
type Server struct {
	options  Options
	listener net.Listener
	http     *http.Server
	closing  context.CancelFunc
	served   chan struct{} // closed when Serve has returned

	mu         sync.Mutex // guards what follows
	arrivals   int
	accounts   map[string]*accountState
	deliveries []Delivery
	words      map[string]string // one copy of each account, path, address, schema and type
}

type accountState struct {
	behave   Behaviour
	count    int
	attempts map[string]int // by webhook-id
}

// Start begins to listen.
func Start(o Options) (*Server, error) {
	listener, err := net.Listen("tcp", cmp.Or(o.Addr, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("start a receiver: %w", err)
	}
	closing, closeAll := context.WithCancel(context.Background())
	s := &Server{
		options: o, listener: listener, closing: closeAll, served: make(chan struct{}),
		accounts: map[string]*accountState{}, words: map[string]string{},
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return closing },
	}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener) // ErrServerClosed, by Close
	}()
	return s, nil
}

// URL returns an account's URL at this server.
func (s *Server) URL(account string) string {
	return "http://" + s.listener.Addr().String() + pathPrefix + account
}

// Deliveries returns the requests that have ended, in the order of their arrival.
func (s *Server) Deliveries() []Delivery {
	s.mu.Lock()
	all := slices.Clone(s.deliveries)
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Delivery) int { return a.Seq - b.Seq })
	return all
}

// Count returns the number of Deliveries.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.deliveries)
}

// Close ends the server and drops requests that hang. When it returns, all requests are
// recorded.
func (s *Server) Close() error {
	s.closing()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close() // closes connections without a request
	}
	<-s.served
	return err
}

// ServeHTTP examines one request and answers by the account's behaviour.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	account, path, ok := splitPath(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	d := Delivery{Account: account, Path: path, ID: r.Header.Get(standardwebhooks.HeaderWebhookID), Arrived: time.Now()}
	d.From, _, _ = net.SplitHostPort(r.RemoteAddr)
	if seconds, err := strconv.ParseInt(r.Header.Get(standardwebhooks.HeaderWebhookTimestamp), 10, 64); err == nil {
		d.SentAt = time.Unix(seconds, 0)
	}
	behave, request := s.arrive(&d)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil { // the sender ended in the middle, or the body is too long
		d.BadSig = err
		s.record(d)
		s.received(d)
		panic(http.ErrAbortHandler)
	}
	d.examine(body)
	d.BadSig = s.checkSignature(account, body, r.Header)
	answer := behave(request)
	if !pause(r, answer) {
		s.record(d)
		s.received(d)
		if answer.Reset {
			reset(w)
		}
		panic(http.ErrAbortHandler)
	}
	// The delivery is recorded before the sender gets the answer, so that a test that has
	// seen the sender succeed finds it here.
	d.Status, d.Answered = cmp.Or(answer.Status, http.StatusOK), time.Now()
	place := s.record(d)
	if !give(w, d.Status, answer.Header, answer.Body) {
		d.Status = 0
		s.unanswered(place)
	}
	s.received(d)
}

// arrive numbers the delivery in the order of arrival.
func (s *Server) arrive(d *Delivery) (Behaviour, Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.accounts[d.Account]
	if state == nil {
		state = &accountState{behave: Healthy(), attempts: map[string]int{}}
		if s.options.Behave != nil {
			state.behave = s.options.Behave(d.Account)
		}
		s.accounts[d.Account] = state
	}
	s.arrivals++
	state.count++
	state.attempts[d.ID]++
	d.Seq, d.Attempt = s.arrivals, state.attempts[d.ID]
	return state.behave, Request{Account: d.Account, ID: d.ID, Count: state.count, Attempt: d.Attempt, At: d.Arrived}
}

// record stores the delivery and returns its index.
func (s *Server) record(d Delivery) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, word := range []*string{&d.Account, &d.Path, &d.From, &d.Schema, &d.Type} {
		kept, ok := s.words[*word]
		if !ok {
			kept = strings.Clone(*word)
			s.words[kept] = kept
		}
		*word = kept
	}
	s.deliveries = append(s.deliveries, d)
	return len(s.deliveries) - 1
}

func (s *Server) unanswered(place int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveries[place].Status = 0
}

func (s *Server) received(d Delivery) {
	if s.options.OnDelivery != nil {
		s.options.OnDelivery(d)
	}
}

// pause waits as the answer says, and reports whether the request gets an answer.
func pause(r *http.Request, answer Answer) bool {
	var due <-chan time.Time // never, for what hangs
	if !answer.Hang {
		due = time.After(answer.Delay)
	}
	select {
	case <-due:
		return !answer.Reset
	case <-r.Context().Done():
		return false
	}
}

// reset drops the connection with a TCP reset instead of an orderly end.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // HTTP/2, or the connection is gone: aborting the handler must do
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// give writes the answer and reports whether the sender was still connected.
func give(w http.ResponseWriter, status int, header http.Header, body string) bool {
	maps.Copy(w.Header(), header)
	if status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // Flush reports an error
	return http.NewResponseController(w).Flush() == nil
}

func (s *Server) checkSignature(account string, body []byte, header http.Header) error {
	if s.options.Secret == nil {
		return nil
	}
	secret := s.options.Secret(account)
	if secret == "" {
		return errors.New("no secret known")
	}
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	return webhook.Verify(body, header)
}

// examine reads the parts of a body by which the referee matches.
func (d *Delivery) examine(body []byte) {
	d.Body = sha256.Sum256(body)
	var envelope struct{ Type, Schema, Data string }
	if json.Unmarshal(body, &envelope) != nil {
		return // such a body matches no expected event
	}
	d.Type, d.Schema = envelope.Type, envelope.Schema
	var data struct{ ID json.RawMessage }
	if envelope.Data == "" || json.Unmarshal([]byte(envelope.Data), &data) != nil {
		return
	}
	if json.Unmarshal(data.ID, &d.Record) != nil {
		d.Record = string(data.ID) // a number, as it is written
	}
}

// splitPath parses /hooks/<account>/<anything>.
func splitPath(path string) (account, rest string, ok bool) {
	path, ok = strings.CutPrefix(path, pathPrefix)
	account, rest, _ = strings.Cut(path, "/")
	return account, rest, ok && account != ""
}
