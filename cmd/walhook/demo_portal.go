package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/receiver"
	"walhook/portal"
)

// demoPortal is the portal that the demo serves while it runs, and what the account that
// it shows has besides its own URL.
type demoPortal struct {
	address string // host:port
	token   string // of the operator
	hooks   *receiver.Server
	began   time.Time
}

// portalIndex is the account that the portal's link is for: one of the flaky ones, so
// the referee's other accounts are as ever.
const portalIndex = 4

func portalAccount() string { return strconv.FormatInt(carrier.AccountID(portalIndex), 10) }

// The account's receiver works, is down, and works again.
const (
	portalUp   = 50 * time.Second
	portalDown = 40 * time.Second
)

// down answers as a receiver whose database is away.
func down() receiver.Answer {
	return receiver.Answer{
		Status: http.StatusInternalServerError, Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
		Body: "could not save the event: the database does not answer\n",
	}
}

// newDemoPortal takes a port: that of --listen if it is free, so that the address is the
// one of the documents.
func newDemoPortal() (*demoPortal, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:8480")
	if err != nil {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("take a port for the portal: %w", err)
	}
	p := &demoPortal{address: listener.Addr().String(), token: "demo-" + rand.Text(), began: time.Now()}
	if err := listener.Close(); err != nil {
		return nil, fmt.Errorf("take a port for the portal: %w", err)
	}
	p.hooks, err = receiver.Start(receiver.Options{Behave: func(string) receiver.Behaviour {
		return receiver.Slow(30*time.Millisecond, receiver.Healthy())
	}})
	return p, err
}

func (p *demoPortal) close() { _ = p.hooks.Close() }

func (p *demoPortal) url() *url.URL {
	return &url.URL{Scheme: "http", Host: p.address, Path: portal.Prefix}
}

// behave is the receiver of the account's own URL.
func (p *demoPortal) behave(then receiver.Behaviour) receiver.Behaviour {
	return func(r receiver.Request) receiver.Answer {
		if r.At.Sub(p.began)%(portalUp+portalDown) >= portalUp {
			return down()
		}
		return then(r)
	}
}

// webhooks are those that the account has made itself.
func (p *demoPortal) webhooks(dead string) []map[string]any {
	return []map[string]any{
		{"name": "CRM", "uri": p.hooks.URL("crm"), "schemas": []string{"dids", "users", "e911"}, "custom_data": map[string]string{"site": "Chicago"}},
		{"name": "Billing", "uri": dead, "schemas": []string{"transactions", "transaction_items", "monthly_charges", "dids"}, "retries": 1},
		{"name": "Faxes", "uri": p.hooks.URL("faxes"), "schemas": []string{"faxes"}, "types": []string{"insert"}},
	}
}

// portalWithin is how long the portal may take to answer at the start.
const portalWithin = time.Minute

// open makes the account's webhooks, and returns a one-time link, as the account's
// provider would make it.
func (p *demoPortal) open(ctx context.Context, dead string) (link string, err error) {
	for _, webhook := range p.webhooks(dead) {
		if err := p.put(ctx, "/webhooks", webhook, nil); err != nil {
			return "", err
		}
	}
	var made struct {
		URL string `json:"url"`
	}
	err = p.put(ctx, "/portal", map[string]any{}, &made)
	return made.URL, err
}

// put calls the subscription API for the account. While walhook starts it tries again.
func (p *demoPortal) put(ctx context.Context, path string, data, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, portalWithin, errors.New("the demo's API is not ready"))
	defer cancel()
	body, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return fmt.Errorf("call the API: %w", err)
	}
	for {
		status, answer, err := p.try(ctx, path, body)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && status == http.StatusCreated:
			if out == nil {
				return nil
			}
			return json.Unmarshal(answer, &struct {
				Data any `json:"data"`
			}{out})
		case err == nil && status < 500 && status != http.StatusNotFound: // the account may not be known yet
			return fmt.Errorf("call the API: PUT %s: HTTP %d: %s", path, status, answer)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *demoPortal) try(ctx context.Context, path string, body []byte) (int, []byte, error) {
	address := "http://" + p.address + "/v2/accounts/" + portalAccount() + path
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("X-Auth-Token", p.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, answer, err
}

// invite is what the demo prints of its portal.
func (p *demoPortal) invite(link string) string {
	return fmt.Sprintf(`
Open the portal of account %s. Its server is down %s of every %s:

    %s

The link opens once, within 15 minutes. You are the operator with the token
%s at %soperator, and
`+"`curl -X PUT -H \"X-Auth-Token: %s\" http://%s/v2/accounts/%s/portal`"+` makes another link.
Ctrl-C ends the demo with its summary.

`, portalAccount(), shortDuration(portalDown), shortDuration(portalUp+portalDown), link, p.token, p.url(), p.token, p.address, portalAccount())
}
