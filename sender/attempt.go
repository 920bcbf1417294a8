package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"walhook/outbox"
)

const (
	maxAnswerHeader = 64 << 10        // bytes of an answer's header
	maxAnswerBody   = 4 << 10         // bytes read of an answer's body
	bodyTimeout     = 2 * time.Second // for reading them
	maxDetail       = 300             // bytes of Attempt.Detail
)

// answer is what one request came to.
type answer struct {
	status     int
	failure    failure // "" when there is a status
	retryAfter string
	detail     string // for people, bounded, without secrets
}

// courier makes requests. It is safe for many goroutines.
type courier struct {
	config Config
	kept   *http.Transport // keeps connections
	fresh  *http.Transport // for the one repeat after a kept connection was found closed
}

func newCourier(c Config) *courier {
	return &courier{config: c, kept: newTransport(c, false), fresh: newTransport(c, true)}
}

func newTransport(c Config, fresh bool) *http.Transport {
	dialer := &net.Dialer{
		Timeout: c.ConnectTimeout,
		Control: egressGuard{allow: c.AllowCIDR}.control,
		// The Go resolver, so that an unreachable resolver is an error
		// number and not a text.
		Resolver: &net.Resolver{PreferGo: true},
	}
	if c.EgressAddress.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: c.EgressAddress.AsSlice(), Zone: c.EgressAddress.Zone()}
	}
	return &http.Transport{
		Proxy: nil, // none from the environment: it would go round the egress guard
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &countingConn{Conn: conn}, nil
		},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		DisableKeepAlives:      fresh,
		TLSHandshakeTimeout:    c.TLSTimeout,
		ResponseHeaderTimeout:  c.HeaderTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns:           c.MaxInFlight,
		MaxIdleConnsPerHost:    c.MaxInFlight, // many accounts may share a host
		IdleConnTimeout:        60 * time.Second,
	}
}

func (c *courier) close() {
	c.kept.CloseIdleConnections()
	c.fresh.CloseIdleConnections()
}

// deliver makes at most one request for the event. A kept connection that the
// receiver had closed before a byte of the request was written carried none;
// it is repeated once, on a connection of its own.
func (c *courier) deliver(ctx context.Context, e outbox.Endpoint, event outbox.Event, at time.Time) answer {
	ctx, cancel := context.WithTimeoutCause(ctx, c.config.AttemptTimeout, errAttemptTimeout)
	defer cancel()

	header, target, err := c.request(e, event, at)
	if err != nil {
		class := failURL
		if errors.Is(err, errSecret) {
			class = failSecret
		}
		return answer{failure: class, detail: clip(err.Error())}
	}
	resp, progress, err := c.roundTrip(ctx, c.kept, target, header, event.Body)
	if err != nil && progress.nothingWritten() && ctx.Err() == nil {
		resp, progress, err = c.roundTrip(ctx, c.fresh, target, header, event.Body)
	}
	if err != nil {
		class := classify(err, context.Cause(ctx), progress.phase())
		return answer{failure: class, detail: clip(strings.ReplaceAll(err.Error(), target.String(), "…"))}
	}
	return c.read(resp, cancel)
}

func (c *courier) roundTrip(ctx context.Context, t *http.Transport, target *url.URL, header http.Header, body []byte) (*http.Response, *progress, error) {
	progress := &progress{}
	req := (&http.Request{
		Method: http.MethodPost,
		URL:    target,
		Host:   target.Host,
		Header: header,
		// GetBody stays nil, and there is no Idempotency-Key: with either,
		// net/http would repeat a POST on its own.
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}).WithContext(progress.trace(ctx))
	resp, err := t.RoundTrip(req)
	return resp, progress, err
}

// request makes what every attempt of the contract carries. User name and
// password of the URL become Basic authentication and leave the URL.
func (c *courier) request(e outbox.Endpoint, event outbox.Event, at time.Time) (http.Header, *url.URL, error) {
	target, err := url.Parse(e.URL)
	if err != nil {
		return nil, nil, errors.New("url cannot be parsed") // err would show it
	}
	if target.Scheme != "http" && target.Scheme != "https" || target.Hostname() == "" {
		return nil, nil, errors.New("url is not http or https with a host")
	}
	signature, err := sign(e.Secrets, event.WebhookID, at, event.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	// The names are as the contract writes them, on the wire too.
	header := http.Header{
		"Content-Type":      {"application/json"},
		"User-Agent":        {"walhook/" + c.config.Version},
		"webhook-id":        {event.WebhookID},
		"webhook-timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"webhook-signature": {signature},
	}
	if target.User != nil {
		password, _ := target.User.Password()
		auth := http.Request{Header: header}
		auth.SetBasicAuth(target.User.Username(), password)
		target.User = nil
	}
	return header, target, nil
}

// read takes the status, which is all that decides, and a little of the body,
// so that a short one leaves the connection usable; the rest is never read.
func (c *courier) read(resp *http.Response, cancel context.CancelFunc) answer {
	a := answer{status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After")}
	var body []byte
	if resp.Body != http.NoBody {
		limit := time.AfterFunc(bodyTimeout, cancel)
		// One byte more shows the end of a body of just the limit.
		body, _ = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBody+1))
		limit.Stop()
		if len(body) > maxAnswerBody {
			cancel() // so that Close drains nothing
		}
		resp.Body.Close()
	}
	if a.status >= 200 && a.status < 300 {
		return a
	}
	a.detail = "HTTP " + strconv.Itoa(a.status)
	if to, err := resp.Location(); err == nil && a.status < 400 {
		a.detail += ", not followed: " + to.Scheme + "://" + to.Host + to.Path
	}
	if len(body) > 0 {
		a.detail += ": " + string(body)
	}
	a.detail = clip(a.detail)
	return a
}

// clip makes text from outside fit a column and a terminal.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 4*maxDetail)], ""))
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}
