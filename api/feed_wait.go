package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"walhook/outbox"
)

const (
	// streamLife is how long a stream lasts at most; clients connect again by themselves.
	streamLife = 15 * time.Minute
	// keepAliveEvery is how often a silent stream says something, for proxies between.
	keepAliveEvery = 15 * time.Second
	// feedWriteTimeout is how long one write to a stream may take.
	feedWriteTimeout = 10 * time.Second
	// reconnectAfter is what a stream tells its client to wait before it connects again.
	reconnectAfter = 2 * time.Second
	// turnPause is about how long a stream waits where its account gets no turn, before it
	// asks for one again.
	turnPause = time.Second
	// feedFullPause is when to try again while too many readers wait.
	feedFullPause = 10 * time.Second

	streamType = "text/event-stream"
)

// feedCall counts who reads a feed, also while it waits. What it reads of the outbox takes
// a turn of an ordinary call.
var feedCall = &kind{account: limit{running: 100}, whole: limit{running: 5000}, weight: 0}

// feedAnswer writes a page, or a stream.
type feedAnswer struct{ Body func(huma.Context) }

// nextEvents returns what follows the reader's place, and moves it on. It waits until
// there is something, or until ctx ends, an early one that the caller gives: then it
// returns nothing. The log is read only for what the tail has not handed out.
func (s *subscriptions) nextEvents(ctx, waiting context.Context, r *feedReader) (page outbox.FeedPage, err error) {
	for {
		if !r.caughtUp {
			if page, err = s.turnPage(ctx, r); err == nil && len(page.Events) > 0 {
				err = s.settingsOfNow(ctx, r)
			}
			if err != nil || len(page.Events) > 0 {
				return page, err
			}
			r.caughtUp = !page.More
			continue
		}
		taken := r.waiter.Take(r.at.event, r.at.timeline)
		if taken.Behind {
			r.caughtUp = false
			continue
		}
		r.at.event = taken.Upto
		r.query.After = r.at.event
		if len(taken.Events) > 0 {
			return outbox.FeedPage{Events: taken.Events, Upto: taken.Upto, Log: outbox.FeedLog{Timeline: r.at.timeline}}, s.settingsOf(ctx, r, taken.Revision)
		}
		select {
		case <-waiting.Done():
			return outbox.FeedPage{Upto: r.at.event, Log: outbox.FeedLog{Timeline: r.at.timeline}}, nil
		case <-s.cfg.Feeds.stopped:
			return page, errStopping
		case <-r.waiter.Signal():
		case <-r.changed:
			if err := s.admitAgain(ctx, r); err != nil {
				return page, err
			}
		}
	}
}

var errStopping = errors.New("the process stops")

// turnPage is nextPage in its turn among the calls of its account.
func (s *subscriptions) turnPage(ctx context.Context, r *feedReader) (outbox.FeedPage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, errors.New("read a feed"))
	defer cancel()
	leave, refused := s.limits.enter(ctx, ordinaryCall, r.payer)
	if leave == nil {
		return outbox.FeedPage{}, tooMany(cmp.Or(refused.after, time.Second), "too many concurrent calls of this account, or its calls used too much database time: try again later")
	}
	defer leave()
	return s.nextPage(ctx, r)
}

// settingsOf reads the webhook's settings, its secrets among them, unless the reader knows
// those of a revision.
func (s *subscriptions) settingsOf(ctx context.Context, r *feedReader, revision int64) error {
	if revision == r.endpoint.Revision {
		return nil
	}
	return s.admitAgain(ctx, r)
}

// settingsOfNow is settingsOf the present revision, for events that the log had.
func (s *subscriptions) settingsOfNow(ctx context.Context, r *feedReader) error {
	revisions, err := s.cfg.Admin.Revisions(ctx, []int64{r.endpoint.ID})
	if err != nil {
		return err
	}
	return s.settingsOf(ctx, r, revisions[r.endpoint.ID])
}

// admitAgain checks whether a reader may still read, and reads its webhook's settings.
func (s *subscriptions) admitAgain(ctx context.Context, r *feedReader) error {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, errors.New("check who reads a feed"))
	defer cancel()
	if err := s.cfg.Admin.Admits(ctx, r.by, r.account); err != nil {
		return err
	}
	return s.openFeed(ctx, r)
}

// wait makes a page as soon as there are events, at the latest when its time is over.
func (s *subscriptions) wait(ctx context.Context, r *feedReader, most time.Duration) (outbox.FeedPage, error) {
	defer s.cfg.Feeds.begin(r, readByPage)()
	waiting, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	page, err := s.nextEvents(ctx, waiting, r)
	if errors.Is(err, errStopping) {
		return page, unavailable("the process stops: ask again, another one answers")
	}
	return page, err
}

// pageAnswer writes a page.
func (s *subscriptions) pageAnswer(ctx context.Context, page feedPage) *feedAnswer {
	s.cfg.Feeds.served.WithLabelValues(readByPage).Add(float64(len(page.Data)))
	text := inJSON(page.withRequestID(callOf(ctx).id))
	return &feedAnswer{func(ctx huma.Context) {
		_, w := humago.Unwrap(ctx)
		w.Header().Set("Content-Type", jsonType)
		_, _ = w.Write(append(text, '\n')) // an error means that the client is gone
	}}
}

func inJSON(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // texts, times and numbers
	return bytes.TrimRight(b.Bytes(), "\n")
}

// wantsStream reports whether a client asks for server-sent events. A weight of 0 says that
// it takes none (RFC 9110, section 12.4.2).
func wantsStream(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		kind, parameters, err := mime.ParseMediaType(part)
		if err != nil || kind != streamType {
			continue
		}
		weight, err := strconv.ParseFloat(cmp.Or(parameters["q"], "1"), 64)
		return err != nil || weight > 0
	}
	return false
}

// streamAnswer writes server-sent events (HTML standard, section 9.2) until its client
// leaves, does not read, or may read no more. The first page is read already.
func (s *subscriptions) streamAnswer(r *feedReader, first outbox.FeedPage) *feedAnswer {
	return &feedAnswer{func(hctx huma.Context) {
		request, w := humago.Unwrap(hctx)
		ctx := request.Context()
		defer s.cfg.Feeds.begin(r, readByStream)()
		h := w.Header()
		h.Set("Content-Type", streamType)
		h.Set("X-Accel-Buffering", "no") // nginx would gather the events
		out := &stream{w: w, control: http.NewResponseController(w), timeout: s.cfg.Feeds.writeTimeout}
		out.printf("retry: %d\n", reconnectAfter.Milliseconds())
		if len(first.Events) == 0 {
			out.printf("id: %s\n", r.at.cursor(r.endpoint.ID)) // r is behind the events of first
		}
		out.printf("\n")
		if len(first.Events) > 0 {
			s.send(out, r, &first)
		}
		r.caughtUp = !first.More
		s.cfg.Feeds.ended.WithLabelValues(s.follow(ctx, out, r)).Inc()
	}}
}

// follow sends what comes, and returns why it ends.
func (s *subscriptions) follow(ctx context.Context, out *stream, r *feedReader) (reason string) {
	end := time.Now().Add(streamLife - rand.N(streamLife/10))
	for time.Now().Before(end) {
		if err := out.flush(); err != nil {
			return endOf(err)
		}
		if s.cfg.Feeds.isStopped() {
			return endedStopped
		}
		waiting, cancel := context.WithTimeout(ctx, keepAliveEvery)
		page, err := s.nextEvents(ctx, waiting, r)
		cancel()
		switch {
		case ctx.Err() != nil:
			return endedDone
		case errors.Is(err, errStopping):
			return endedStopped
		case err != nil: // the client connects again, and gets it as an answer
			switch failure := s.failureOf(ctx, err); {
			case failure.status == http.StatusTooManyRequests:
				out.printf(": waiting for a turn\n\n")
				s.pauseForTurn(ctx)
			case failure.status >= http.StatusInternalServerError:
				return endedFailed
			default:
				return endedRefused
			}
		case len(page.Events) == 0:
			out.printf(": keep-alive\nid: %s\n\n", r.at.cursor(r.endpoint.ID))
		default:
			s.send(out, r, &page)
		}
	}
	return endedDone
}

// endOf is the reason of a stream to which a write ended with an error.
func endOf(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return endedSlow
	}
	return endedDone
}

// pauseForTurn keeps a stream that got no turn from asking for one again at once: many
// would use up the machine with it. They come back one after the other.
func (s *subscriptions) pauseForTurn(ctx context.Context) {
	timer := time.NewTimer(turnPause/2 + rand.N(turnPause))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.cfg.Feeds.stopped:
	}
}

func (s *subscriptions) send(out *stream, r *feedReader, page *outbox.FeedPage) {
	for i := range page.Events {
		shown := s.shownFeedEvent(&r.endpoint, &page.Events[i], page.Log.Timeline)
		out.printf("id: %s\ndata: %s\n\n", shown.Cursor, inJSON(shown))
	}
	s.cfg.Feeds.served.WithLabelValues(readByStream).Add(float64(len(page.Events)))
}

// stream is an answer that is written bit by bit.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration // of a write
}

func (s *stream) printf(format string, args ...any) {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.timeout)) // the server has its own besides
	_, _ = fmt.Fprintf(s.w, format, args...)                  // flush returns the error
}

func (s *stream) flush() error {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.timeout))
	return s.control.Flush()
}
