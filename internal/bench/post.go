package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// postJob is the plain-POST ceiling: one request per record, with a body and headers like
// walhook's, and no other work.
type postJob struct {
	Addresses   []string
	First       int64
	Count       int64
	Accounts    []int64 // in turn
	Rest        string  // of each body, after the account
	Concurrency int
	Version     string // of the User-Agent
}

type postResult struct {
	Seconds float64 // from the first request to the last answer
}

// signature has the length of a real one. The ceiling does not compute signatures.
const signature = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func (j postJob) run(ctx context.Context) (postResult, error) {
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConns: 0, MaxIdleConnsPerHost: j.Concurrency, DisableCompression: true,
	}}
	defer client.CloseIdleConnections()
	urls := make([]string, len(j.Accounts))
	for i, account := range j.Accounts {
		urls[i] = hookURL(j.Addresses[i%len(j.Addresses)], account)
	}
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	began := time.Now()
	for range j.Concurrency {
		group.Go(func() error {
			for {
				i := next.Add(1) - 1
				if i >= j.Count {
					return nil
				}
				account := int(i % int64(len(urls)))
				if err := j.post(ctx, client, urls[account], j.First+i, j.Accounts[account]); err != nil {
					return err
				}
			}
		})
	}
	err := group.Wait()
	return postResult{Seconds: time.Since(began).Seconds()}, err
}

func (j postJob) post(ctx context.Context, client *http.Client, url string, record, account int64) error {
	body := make([]byte, 0, 512)
	body = strconv.AppendInt(append(body, bodyStart...), record, 10)
	body = strconv.AppendInt(append(body, bodyOwner...), account, 10)
	body = append(body, j.Rest...)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header = http.Header{
		"Content-Type":      {"application/json"},
		"User-Agent":        {"walhook/" + j.Version},
		"Webhook-Id":        {fmt.Sprintf("evt_%016X_1", record)},
		"Webhook-Timestamp": {strconv.FormatInt(time.Now().Unix(), 10)},
		"Webhook-Signature": {signature},
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the receiver answered %s", response.Status)
	}
	return nil
}
