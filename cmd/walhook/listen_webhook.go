package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// makeWebhook makes a webhook to which nothing is sent.
func (l *feedListener) makeWebhook(ctx context.Context) error {
	host, _ := os.Hostname()
	data := map[string]any{"name": strings.TrimSpace("walhook listen " + host), "delivery": "pull"}
	if l.o.hook != "" {
		data["hook"] = l.o.hook
	}
	if l.o.schemas != "" {
		data["schemas"] = strings.Split(l.o.schemas, ",")
	}
	var made struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
		Warnings []string `json:"warnings"`
	}
	if err := l.call(ctx, http.MethodPut, "/webhooks", map[string]any{"data": data}, &made); err != nil {
		return fmt.Errorf("make a webhook to read: %w", err)
	}
	for _, warning := range made.Warnings {
		fmt.Fprintln(l.warnings, "warning:", printable(warning))
	}
	l.webhook = made.Data.ID
	return nil
}

func (l *feedListener) removeWebhook(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, removeHookTimeout, errors.New("timed out"))
	defer cancel()
	return l.call(ctx, http.MethodDelete, "/webhooks/"+url.PathEscape(l.webhook), nil, nil)
}

// learnSecret reads the webhook's secret, unless --secret gives one.
func (l *feedListener) learnSecret(ctx context.Context) error {
	if l.o.secret != "" {
		return nil
	}
	var read struct {
		Data struct {
			Secret string `json:"secret"`
		} `json:"data"`
	}
	if err := l.call(ctx, http.MethodGet, "/webhooks/"+url.PathEscape(l.webhook)+"/secret", nil, &read); err != nil {
		return fmt.Errorf("read the signing secret: %w", err)
	}
	if l.o.webhook == "" {
		l.madeSecret = read.Data.Secret
	}
	verifier, err := standardwebhooks.NewWebhook(read.Data.Secret)
	if err != nil {
		return errors.New("read the signing secret: it is not whsec_ and base64; rotate it")
	}
	l.printer.verifier = verifier
	return nil
}

// call makes one call of the API. Its error is a [*feedError] where the API refuses.
func (l *feedListener) call(ctx context.Context, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, feedCallTimeout, errors.New("timed out"))
	defer cancel()
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	response, err := l.request(ctx, method, l.base+path, sent, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return refusalOf(response)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(answer)
}

// request makes a request with the token. Errors show no query and no token.
func (l *feedListener) request(ctx context.Context, method, to string, body io.Reader, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "walhook-listen/"+readBuild().version)
	request.Header.Set("X-Auth-Token", l.o.token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(request.Header, header)
	response, err := l.client.Do(request)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err
	}
	return response, err
}

// refusalOf reads the API's answer that is an error.
func refusalOf(response *http.Response) error {
	var refused struct {
		Message string `json:"message"`
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	_ = json.Unmarshal(text, &refused) // a proxy's answer has another form
	return &feedError{response.StatusCode, cmp.Or(refused.Message, "the API answers "+response.Status)}
}
