package bench

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// receiveOrder is an order to the receivers' process; one of its fields is set.
type receiveOrder struct {
	Listen int          // listen on this number of addresses, and report them
	Expect *expectation // expect this from now on
	Hang   *hang        // let these accounts hang from now on
	Report bool         // report the counts since the expectation
	Times  bool         // with Report: also when each record was answered
}

// hang selects accounts that take requests and never answer: in each hundred, counted
// from the first account, those below a bound.
type hang struct {
	Below        int
	FirstAccount int64
}

func (h *hang) holds(account string) bool {
	if h == nil || h.Below == 0 {
		return false
	}
	id, err := strconv.ParseInt(account, 10, 64)
	return err == nil && (id-h.FirstAccount)%100 < int64(h.Below)
}

// receiveReport is the answer to every order.
type receiveReport struct {
	Addresses []string
	Delivered int
	Tally     Tally
	First     time.Time
	Last      time.Time
	Samples   []sample
	Times     []int64
}

// receivers are HTTP servers that count. Every endpoint has its own path:
// /hooks/<account>, and /hooks/<account>/<number> for an account's further endpoints.
type receivers struct {
	count    atomic.Pointer[count]
	hang     atomic.Pointer[hang]
	inFlight atomic.Int64
	peak     atomic.Int64
	bodies   sync.Pool // of *[]byte
	server   *http.Server
}

// receive is the receivers' process.
func receive(in io.Reader, out io.Writer) error {
	r := &receivers{}
	r.count.Store(newCount(expectation{Copies: 1}))
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	defer r.server.Close()
	return answers(in, out, r.apply)
}

func (r *receivers) apply(order receiveOrder) (report receiveReport, err error) {
	for range order.Listen {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return report, fmt.Errorf("start a receiver: %w", err)
		}
		report.Addresses = append(report.Addresses, listener.Addr().String())
		go func() { _ = r.server.Serve(listener) }() // ends with the process
	}
	if order.Expect != nil {
		r.count.Store(newCount(*order.Expect))
		r.peak.Store(0)
	}
	if order.Hang != nil {
		r.hang.Store(order.Hang)
	}
	count := r.count.Load()
	report.Delivered = int(count.delivered.Load())
	if order.Report {
		report.Tally = count.tally(r.peak.Load())
		report.First, report.Last = report.Tally.First, report.Tally.Last
		report.Samples = count.samples
	}
	if order.Times {
		report.Times = count.times()
	}
	return report, nil
}

const hooksPath = "/hooks/"

// hookURL returns an account's URL at a receiver.
func hookURL(address string, account int64) string {
	return "http://" + address + hooksPath + strconv.FormatInt(account, 10)
}

// ServeHTTP takes a request, counts it and answers 200.
func (r *receivers) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	now := r.inFlight.Add(1)
	defer r.inFlight.Add(-1)
	for peak := r.peak.Load(); now > peak && !r.peak.CompareAndSwap(peak, now); peak = r.peak.Load() {
	}
	body, err := r.read(q)
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	account, number, further := strings.Cut(strings.TrimPrefix(q.URL.Path, hooksPath), "/")
	endpoint := int64(0)
	if further {
		if endpoint, err = strconv.ParseInt(number, 10, 64); err != nil {
			endpoint = -1
		}
	}
	if r.hang.Load().holds(account) {
		<-q.Context().Done() // the sender timed out
		panic(http.ErrAbortHandler)
	}
	if !r.count.Load().take(account, endpoint, q.Header, *body) {
		w.WriteHeader(http.StatusBadRequest)
	}
	r.bodies.Put(body)
}

const maxBody = 1 << 20

// read reads a body of a known length into a buffer that is used again.
func (r *receivers) read(q *http.Request) (*[]byte, error) {
	if q.ContentLength < 0 || q.ContentLength > maxBody {
		return nil, fmt.Errorf("content length %d", q.ContentLength)
	}
	body, ok := r.bodies.Get().(*[]byte)
	if !ok {
		body = new([]byte)
	}
	if int64(cap(*body)) < q.ContentLength {
		*body = make([]byte, q.ContentLength)
	}
	*body = (*body)[:q.ContentLength]
	_, err := io.ReadFull(q.Body, *body)
	return body, err
}
