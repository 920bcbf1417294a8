package httpd

import (
	"context"
	"io"
	"net/http"
	"time"
)

// times are the bounds of a request. A client cannot extend them by sending slowly.
type times struct {
	header time.Duration
	body   time.Duration // of a whole body
	write  time.Duration // of what is written at once
	idle   time.Duration // between two requests
	// rest is how long the server waits for the rest of a body that the handler did not
	// read, so that the client can read the answer.
	rest time.Duration
	// gone is how much longer a request may run when its client seems gone. A client that
	// has only closed its sending side, as RFC 9112 (9.6) allows, looks the same.
	gone time.Duration
}

func standardTimes() times {
	return times{header: 5 * time.Second, body: 10 * time.Second, write: 10 * time.Second, idle: time.Minute, rest: 500 * time.Millisecond, gone: 5 * time.Second}
}

const maxHeaderBytes = 32 << 10

// bound applies the bounds for which [http.Server] has no setting to every request.
func bound(handler http.Handler, limit times) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := outliving(r.Context(), limit.gone)
		defer end()
		r = r.WithContext(ctx) // a copy, because net/http uses the body of its own request
		b := &bounded{ResponseWriter: w, control: http.NewResponseController(w), limit: limit}
		if r.Body != nil && r.Body != http.NoBody {
			b.body = &body{from: r.Body, control: b.control}
			_ = b.control.SetReadDeadline(time.Now().Add(limit.body)) // fails only for connections of tests
			r.Body = b.body
		}
		defer b.answering()
		handler.ServeHTTP(b, r)
	})
}

// outliving returns a context that ends some time after client.
func outliving(client context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(client))
	stop := context.AfterFunc(client, func() {
		timer := time.AfterFunc(d, func() { cancel(context.Cause(client)) })
		context.AfterFunc(ctx, func() { timer.Stop() })
	})
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// body is a request's body. Once it is read, it removes the read deadline, which would
// otherwise end the handler.
type body struct {
	from    io.ReadCloser
	control *http.ResponseController
	read    bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if err == io.EOF && !b.read {
		b.read = true
		_ = b.control.SetReadDeadline(time.Time{}) // as above
	}
	return n, err
}

func (b *body) Close() error { return b.from.Close() }

// bounded limits the time of every write.
type bounded struct {
	http.ResponseWriter
	control *http.ResponseController
	limit   times
	body    *body // nil without one
	begun   bool
}

// answering starts the time limit of the next write. It soon ends the wait for the rest of
// an unread body.
func (b *bounded) answering() {
	now := time.Now()
	_ = b.control.SetWriteDeadline(now.Add(b.limit.write)) // fails only for connections of tests
	if !b.begun && b.body != nil && !b.body.read {
		_ = b.control.SetReadDeadline(now.Add(b.limit.rest))
	}
	b.begun = true
}

func (b *bounded) WriteHeader(status int) {
	b.answering()
	b.ResponseWriter.WriteHeader(status)
}

func (b *bounded) Write(text []byte) (int, error) {
	b.answering()
	return b.ResponseWriter.Write(text)
}

// FlushError is for [http.ResponseController].
func (b *bounded) FlushError() error {
	b.answering()
	return b.control.Flush()
}

// Flush is for [http.Flusher].
func (b *bounded) Flush() { _ = b.FlushError() } // the next write returns the error

// Unwrap is for [http.ResponseController].
func (b *bounded) Unwrap() http.ResponseWriter { return b.ResponseWriter }
