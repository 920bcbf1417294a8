package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"walhook/outbox/address"
)

const forwardTimeout = 30 * time.Second

// forwarder makes the requests of --forward, as a delivery to that URL makes them.
type forwarder struct {
	url           *url.URL // without user name and password
	authorization string   // made of these; "" for none
}

// forwardTransport follows no redirects, as a push does.
var forwardTransport = &http.Transport{Proxy: nil, ForceAttemptHTTP2: false, DisableCompression: true, IdleConnTimeout: time.Minute}

// newForwarder reads a URL as a delivery does. Its errors show nothing of the URL.
func newForwarder(to string) (*forwarder, error) {
	u, zone, err := address.RequestURL(to)
	if err != nil {
		return nil, err
	}
	f := &forwarder{url: u}
	if zone != "" { // net/http dials it, and leaves it out of Host
		host, port := u.Hostname(), u.Port()
		u.Host = strings.TrimSuffix(net.JoinHostPort(host+"%"+zone, port), ":")
	}
	if u.User != nil {
		password, _ := u.User.Password()
		auth := http.Request{Header: http.Header{}}
		auth.SetBasicAuth(u.User.Username(), password)
		f.authorization = auth.Header.Get("Authorization")
		u.User = nil
	}
	return f, nil
}

// forwarded is what became of an event that was handed on.
type forwarded struct {
	Status int     `json:"status,omitempty"`
	Error  string  `json:"error,omitempty"`
	MS     float64 `json:"duration_ms"`
}

// taken says that the receiver has the event: any 2xx, as of a delivery.
func (f *forwarded) taken() bool { return f.Error == "" && f.Status/100 == 2 }

// hand makes the request of an event, with the headers of a push.
func (f *forwarder) hand(ctx context.Context, e *pulledEvent) *forwarded {
	ctx, cancel := context.WithTimeoutCause(ctx, forwardTimeout, errors.New("no answer within 30 seconds"))
	defer cancel()
	began := time.Now()
	result := &forwarded{}
	defer func() { result.MS = float64(time.Since(began).Microseconds()) / 1000 }()
	to := *f.url
	address.JoinQuery(&to, e.Query)
	request, err := http.NewRequestWithContext(ctx, e.Method, to.String(), strings.NewReader(e.Body))
	if err != nil {
		result.Error = err.Error()
		return result
	}
	for name, value := range e.Headers {
		request.Header[name] = []string{value} // their case is that of a push
	}
	if f.authorization != "" {
		request.Header.Set("Authorization", f.authorization)
	}
	response, err := forwardTransport.RoundTrip(request)
	if err != nil {
		result.Error = cmp.Or(context.Cause(ctx), err).Error()
		return result
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection is used again
	result.Status = response.StatusCode
	return result
}

// notTaken is an event that --forward has not taken, where nothing may pass it.
type notTaken struct {
	event  string
	answer *forwarded
}

func (e *notTaken) Error() string {
	if e.answer.Error != "" {
		return fmt.Sprintf("--forward did not take %s: %s", e.event, e.answer.Error)
	}
	return fmt.Sprintf("--forward did not take %s: it answered %d", e.event, e.answer.Status)
}

// notRendered is an event of which the API gave no request, where nothing may pass it.
type notRendered struct{ event, why string }

func (e *notRendered) Error() string {
	return fmt.Sprintf("the feed has no request of %s, and no later event passes it: %s", e.event, e.why)
}
