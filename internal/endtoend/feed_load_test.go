package endtoend

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// streamReaders read feeds as server-sent events. Readers of one feed share a webhook.
type streamReaders struct {
	mu    sync.Mutex
	took  []time.Duration // guarded by mu: from before each commit until an event is here
	ended error           // guarded by mu
}

// read follows a stream until ctx ends. Its dids have the time before their commit, in
// microseconds, as number.
func (r *streamReaders) read(ctx context.Context, client *http.Client, url string, begun func()) error {
	request, err := http.NewRequestWithContext(ctx, "GET", url+"/feed?last=0", nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Auth-Token", "the operator of the test")
	request.Header.Set("Accept", "text/event-stream")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	begun()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		_, number, found := strings.Cut(lines.Text(), `\\\"number\\\":\\\"`)
		if !found {
			continue
		}
		micros, err := strconv.ParseInt(number[:strings.IndexByte(number, '\\')], 10, 64)
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.took = append(r.took, time.Since(time.UnixMicro(micros)))
		r.mu.Unlock()
	}
	return lines.Err()
}

// Readers that wait cost nearly nothing, and those that get events get them soon. The log
// has the figures: -feed-readers=2000 -feed-for=20s.
func TestFeed_ReadersThatWaitAndReadersThatGet(t *testing.T) {
	t.Parallel()
	const each, rate = 10, 100 // readers of a webhook; transactions a second
	idle, busy := *feedReaders, *feedReaders/10
	source, box := pgtest.Database(t), pgtest.Database(t)
	statements := box.CountStatements(t)
	source.Exec(t, carrier.Tables)
	source.Exec(t, fmt.Sprintf(`INSERT INTO users (id, username) SELECT n, 'user ' || n FROM generate_series(1, %d) n`, (idle+busy)/each))
	address := loopback.Address(t)
	process := startChild(t, "run", "--source", source.URL, "--outbox", box.URL, "--slot", "feed_"+source.Name, "--setup",
		"--listen", address, "--admin-token", "the operator of the test", "--allow-cidr", "127.0.0.0/8", "--trusted-proxies", "127.0.0.0/8")
	defer process.stop(t)
	awaitReady(t, address)
	operator := apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}
	ctx, leave := context.WithCancel(t.Context())
	transport := &http.Transport{}
	readers := &streamReaders{}
	var running, beginning sync.WaitGroup
	defer running.Wait()
	defer leave()
	opening := make(chan struct{}, 20)
	for n := range (idle + busy) / each {
		account := strconv.Itoa(n + 1)
		webhook := data(t, operator.call(t, 201, "PUT", account+"/webhooks", `{"data":{"name":"n","delivery":"pull"}}`))["id"].(string)
		for range each {
			beginning.Add(1)
			running.Go(func() {
				opening <- struct{}{}
				once := sync.OnceFunc(func() {
					<-opening
					beginning.Done()
				})
				defer once()
				err := readers.read(ctx, &http.Client{Transport: transport}, operator.base+account+"/webhooks/"+webhook, once)
				if ctx.Err() == nil {
					readers.mu.Lock()
					readers.ended = fmt.Errorf("a reader of account %s ended: %v", account, err)
					readers.mu.Unlock()
				}
			})
		}
	}
	beginning.Wait()
	const waiting = "walhook_feed_readers"
	eventually(t, patience, func() bool {
		readers.mu.Lock()
		defer readers.mu.Unlock()
		if readers.ended != nil {
			t.Fatal(readers.ended)
		}
		return scrape(t, address).sum(waiting) == float64(idle+busy)
	})

	measure := func(what string, during func()) (perSecond float64) {
		t.Helper()
		before, counted, began := scrape(t, address), statements.Load(), time.Now()
		during()
		after, seconds := scrape(t, address), time.Since(began).Seconds()
		perSecond = float64(statements.Load()-counted) / seconds
		t.Logf("%s: %.0f statements of the outbox a second, %.1f %% of a processor, %.0f MB of memory, %.0f goroutines", what, perSecond,
			100*(after.sum("process_cpu_seconds_total")-before.sum("process_cpu_seconds_total"))/seconds,
			after.sum("process_resident_memory_bytes")/(1<<20), after.sum("go_goroutines"))
		return perSecond
	}
	resting := measure(fmt.Sprintf("%d readers wait", idle+busy), func() { linger(ctx, *feedFor) })
	if most := 100.0; resting > most {
		t.Errorf("%.0f statements a second while all readers wait, want at most %.0f", resting, most)
	}
	written := 0
	conn := source.Connect(t)
	measure(fmt.Sprintf("%d of them get events of %d transactions a second", busy, rate), func() {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for end := time.Now().Add(*feedFor); time.Now().Before(end); written++ {
			<-tick.C
			account := idle/each + 1 + written%(busy/each)
			if _, err := conn.Exec(ctx, "INSERT INTO dids (id, user_id, number) VALUES ($1, $2, $3)", written+1, account, strconv.FormatInt(time.Now().UnixMicro(), 10)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, patience, func() bool {
			readers.mu.Lock()
			defer readers.mu.Unlock()
			return len(readers.took) >= written*each || readers.ended != nil
		})
	})
	readers.mu.Lock()
	defer readers.mu.Unlock()
	if readers.ended != nil {
		t.Fatal(readers.ended)
	}
	if len(readers.took) != written*each {
		t.Errorf("readers got %d events of %d transactions, want %d each", len(readers.took), written, each)
	}
	slices.Sort(readers.took)
	t.Logf("%d events of %d transactions: p50 %v, p99 %v, at most %v from before the commit to the reader", len(readers.took), written,
		readers.took[len(readers.took)/2], readers.took[len(readers.took)*99/100], readers.took[len(readers.took)-1])
}
