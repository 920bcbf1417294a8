package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"walhook/internal/retry"
	"walhook/outbox/address"
)

const (
	// feedSilence is after how long without a word a stream counts as lost: the feed
	// says something every 15 seconds.
	feedSilence      = 50 * time.Second
	feedReconnectMin = 500 * time.Millisecond
	feedReconnectMax = 30 * time.Second

	tokenVariable = "TOKEN" // in the environment, after envPrefix: an account's token

	feedCallTimeout   = 30 * time.Second
	removeHookTimeout = 10 * time.Second
	maxFeedLine       = 64 << 20 // more than an event of the largest body in JSON
)

// feedListener reads the feed of a webhook, prints its events, and forwards them.
type feedListener struct {
	o       listenOptions
	base    string // …/v2/accounts/ID
	webhook string
	cursor  string // of what was handled last; "" before the first
	file    cursorFile
	// madeSecret is the secret of a webhook that listen made; whoever writes a receiver needs it.
	madeSecret string
	refused    retry.Backoff // between tries of an event that --forward does not take
	forward    *forwarder    // nil without --forward
	printer    *hookPrinter
	out        io.Writer
	warnings   io.Writer // what is no event, with --json
	client     *http.Client
	now        func() time.Time

	clock      feedClock // of the answer that is read
	handledNow int       // events of it that were handled
	pageLimit  int       // of the pages to read; 0 is to read a stream
	readAgain  bool      // the next event was read before, and was too old
}

// feedError is an answer that another try does not change.
type feedError struct {
	status  int
	message string
}

func (e *feedError) Error() string { return fmt.Sprintf("%s (HTTP %d)", e.message, e.status) }

// pulledEvent is an event of the feed.
type pulledEvent struct {
	EventID     string            `json:"event_id"`
	Cursor      string            `json:"cursor"`
	Schema      string            `json:"schema"`
	Type        string            `json:"type"`
	Record      string            `json:"record"`
	CommittedAt time.Time         `json:"committed_at"`
	Method      string            `json:"method"`
	Headers     map[string]string `json:"headers"`
	Query       string            `json:"query,omitempty"`
	Body        string            `json:"body"`
	Unsent      string            `json:"unsent,omitempty"`
	// What listen adds with --json.
	Signature string     `json:"signature,omitempty"`
	Forward   *forwarded `json:"forward,omitempty"`
}

// listenFrom reads a feed until ctx ends, which is no error.
func listenFrom(ctx context.Context, o listenOptions, out io.Writer) error {
	return newFeedListener(o, out).run(ctx)
}

func newFeedListener(o listenOptions, out io.Writer) *feedListener {
	return &feedListener{o: o, out: out, warnings: os.Stderr, client: &http.Client{}, now: time.Now, file: cursorFile{path: o.cursorFile}, refused: retry.Backoff{Min: feedReconnectMin, Max: feedReconnectMax}}
}

func (l *feedListener) run(ctx context.Context) (err error) {
	if l.base, err = l.o.checkFrom(); err != nil {
		return usage(err)
	}
	if l.o.forward != "" {
		if l.forward, err = newForwarder(l.o.forward); err != nil {
			return usage(fmt.Errorf("--forward: %w", err))
		}
	}
	// The webhook that listen makes has to be removed, also when the terminal or the reader
	// of its output is gone.
	for _, gone := range []os.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		if !signal.Ignored(gone) {
			var stop context.CancelFunc
			ctx, stop = signal.NotifyContext(ctx, gone)
			defer stop()
		}
	}
	l.webhook = l.o.webhook
	if err := l.file.own(lockNow, l.warnings); err != nil {
		return err
	}
	defer func() {
		if failed := l.file.release(); failed != nil {
			err = errors.Join(err, failed)
		}
	}()
	if l.cursor, err = l.file.read(); err != nil {
		return usage(err)
	}
	if l.printer, err = newHookPrinter(l.o, l.out); err != nil {
		return usage(err)
	}
	if l.webhook == "" {
		if err := l.makeWebhook(ctx); err != nil {
			return orStopped(ctx, err)
		}
		defer func() {
			if gone := l.removeWebhook(context.WithoutCancel(ctx)); gone != nil {
				err = errors.Join(err, fmt.Errorf("remove the webhook %s that listen made: %w; remove it with DELETE %s/webhooks/%s", l.webhook, gone, l.base, l.webhook))
			}
		}()
	}
	if err := l.learnSecret(ctx); err != nil {
		return orStopped(ctx, err)
	}
	l.say()
	return orStopped(ctx, l.follow(ctx))
}

// orStopped is nil where ctx has ended: that is how listen ends.
func orStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// checkFrom returns the address of the account, or everything that is wrong with the flags.
func (o *listenOptions) checkFrom() (base string, err error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	o.token = cmp.Or(o.token, os.Getenv(envPrefix+tokenVariable))
	if o.token == "" {
		fault("--token: missing; give the account's token of the API, or set WALHOOK_TOKEN")
	}
	from, parseErr := url.Parse(o.from)
	switch {
	case parseErr != nil || from.Scheme != "http" && from.Scheme != "https" || from.Host == "":
		fault("--from: want the address of the account's API, such as https://api.example.com/v2/accounts/7")
	default:
		before, rest, found := strings.Cut(from.EscapedPath(), "/accounts/")
		account, rest, _ := strings.Cut(strings.Trim(rest, "/"), "/")
		kind, webhook, _ := strings.Cut(rest, "/")
		switch {
		case !found || account == "" || kind != "" && kind != "webhooks" || strings.Contains(webhook, "/"):
			fault("--from %s: names no account; want an address such as %s://%s/v2/accounts/7", from.Redacted(), from.Scheme, from.Host)
		case webhook != "" && o.webhook != "" && webhook != o.webhook:
			fault("--webhook: --from names another one")
		}
		o.webhook = cmp.Or(o.webhook, webhook)
		base = from.Scheme + "://" + from.Host + before + "/accounts/" + account
	}
	if o.forward != "" {
		if wrong := address.URLFault(o.forward); wrong != "" {
			fault("--forward: want a URL such as http://localhost:3000/hook: %s", wrong)
		}
	}
	if o.webhook != "" && (o.hook != "" || o.schemas != "") {
		fault("--hook and --schemas are for the webhook that listen makes: leave out --webhook, or edit that webhook")
	}
	if o.cursorFile != "" && o.webhook == "" {
		fault("--cursor-file: name the webhook with --webhook, such as --webhook account; the one that listen makes is removed at the end")
	}
	if o.replayLast < 0 || o.replayLast > 1000 {
		fault("--replay-last %d: want 0 to 1000", o.replayLast)
	}
	if o.replayLast > 0 && o.webhook == "" {
		fault("--replay-last: name the webhook whose last events to begin with, such as --webhook account; the one that listen makes has none yet")
	}
	return base, errors.Join(faults...)
}

// say tells what listen does, beside the lines of JSON where those are asked for.
func (l *feedListener) say() {
	out := l.out
	if l.o.json {
		out = l.warnings
	}
	checked := "signatures are checked"
	if l.printer.verifier == nil {
		checked = "signatures are not checked"
	}
	what := "webhook " + l.webhook
	if l.o.webhook == "" {
		what += ", which is removed at the end"
	}
	to := ""
	if l.o.forward != "" {
		to = "; forwarding to " + address.Redact(l.o.forward)
	}
	fmt.Fprintf(out, "reading the feed of %s; %s%s; Ctrl-C ends it\n", what, checked, to)
	if l.madeSecret != "" {
		fmt.Fprintf(out, "its signing secret, for your receiver, is %s\n", printable(l.madeSecret))
	}
}

// follow reads the feed, again after each cut, until ctx ends or the API refuses for good.
func (l *feedListener) follow(ctx context.Context) error {
	backoff := retry.Backoff{Min: feedReconnectMin, Max: feedReconnectMax}
	for {
		wait, err := l.read(ctx, backoff.Reset)
		if ctx.Err() != nil {
			return nil
		}
		if refused, ok := errors.AsType[*feedError](err); ok && refused.status/100 == 4 && refused.status != http.StatusTooManyRequests && refused.status != http.StatusRequestTimeout {
			return fmt.Errorf("read the feed: %w", err)
		}
		if lost, ok := errors.AsType[*cursorError](err); ok {
			return lost
		}
		if errors.Is(err, errAged) || err == nil && l.pageLimit > 0 && l.handledNow > 0 {
			continue
		}
		_, refused := errors.AsType[*notTaken](err)
		_, missing := errors.AsType[*notRendered](err)
		if refused || missing {
			wait = l.refused.Next()
			fmt.Fprintf(l.warnings, "%s; trying again in %v\n", printable(err.Error()), wait.Round(100*time.Millisecond))
			if retry.Pause(ctx, wait) != nil {
				return nil
			}
			continue
		}
		wait = max(wait, backoff.Next())
		if err != nil {
			fmt.Fprintf(l.warnings, "%s; trying again in %v\n", printable(fmt.Sprintf("the feed broke off: %v", err)), wait.Round(100*time.Millisecond))
		}
		if retry.Pause(ctx, wait) != nil {
			return nil
		}
	}
}

// read reads one stream to its end, or a page. A stream that ends by itself is no error. wait is for
// how long the API asks to wait.
func (l *feedListener) read(ctx context.Context, began func()) (wait time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(feedSilence, func() { cancel(errors.New("nothing came for too long")) })
	defer silent.Stop()
	query := url.Values{}
	header := http.Header{"Accept": {"text/event-stream"}}
	paged := l.pageLimit > 0 && l.cursor != ""
	switch {
	case paged:
		header = http.Header{"Accept": {"application/json"}}
		query.Set("after", l.cursor)
		query.Set("limit", strconv.Itoa(l.pageLimit))
	case l.cursor != "":
		header.Set("Last-Event-ID", l.cursor)
	default:
		query.Set("last", strconv.Itoa(l.o.replayLast))
	}
	l.handledNow = 0
	response, err := l.request(ctx, http.MethodGet, l.base+"/webhooks/"+url.PathEscape(l.webhook)+"/feed?"+query.Encode(), nil, header)
	if err != nil {
		return 0, cmp.Or(context.Cause(ctx), err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusGone {
		return 0, l.goOnAtOldest(response)
	}
	if response.StatusCode != http.StatusOK {
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		err := refusalOf(response)
		if response.StatusCode == http.StatusBadRequest && l.cursor != "" && l.cursor == l.file.kept {
			err = fmt.Errorf("--cursor-file: %s holds no place in this webhook's feed; delete it to begin with what happens from now on, or give this listen a file of its own: %w", l.file.path, err)
		}
		return time.Duration(min(seconds, 300)) * time.Second, err
	}
	began()
	l.clock = newFeedClock(response.Header.Get("Date"), l.now())
	if paged {
		return 0, l.readPage(ctx, silent.Stop, response.Body)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(make([]byte, 64<<10), maxFeedLine)
	var id string
	var data []byte
	for lines.Scan() {
		silent.Reset(feedSilence)
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch value = strings.TrimPrefix(value, " "); {
		case name == "id":
			id = value
		case name == "data":
			data = []byte(value)
		case lines.Text() != "":
		case data != nil: // its cursor counts once it is handled
			if err := l.take(ctx, data); err != nil {
				return 0, err
			}
			id, data = "", nil
		case id != "":
			l.cursor, id = id, ""
			if err := l.file.keep(l.cursor); err != nil {
				return 0, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return 0, cmp.Or(context.Cause(ctx), err)
	}
	return 0, nil
}

// goOnAtOldest takes the oldest cursor of a 410.
func (l *feedListener) goOnAtOldest(response *http.Response) error {
	var gone struct {
		Oldest  string `json:"oldest"`
		Message string `json:"message"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&gone); err != nil || gone.Oldest == "" {
		return &feedError{response.StatusCode, cmp.Or(gone.Message, "the events after the last one are gone")}
	}
	l.cursor = gone.Oldest
	return errors.New("events were missed: " + gone.Message)
}

// take prints one event, and hands it on.
func (l *feedListener) take(ctx context.Context, data []byte) error {
	var e pulledEvent
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("an event of the feed cannot be read: %w", err)
	}
	header := http.Header{}
	for name, value := range e.Headers {
		header.Set(name, value)
	}
	signed := e.Body
	if e.Method == http.MethodGet {
		signed = e.Query
	}
	e.Signature = l.printer.check([]byte(signed), header)
	if l.forward != nil && e.Unsent == "" {
		if l.aged(&e) {
			return errAged
		}
		e.Forward = l.forward.hand(ctx, &e)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	err := l.handled(&e)
	if _, missing := errors.AsType[*notRendered](err); missing {
		return err // it is printed once there is something of it
	}
	if l.o.json {
		line, marshal := json.Marshal(e)
		if marshal != nil {
			return marshal
		}
		_, _ = l.out.Write(append(line, '\n')) // there is nowhere to report an error
		return err
	}
	event, fields := readEnvelope([]byte(e.Body))
	line := l.printer.head(&http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/"}}, cmp.Or(strings.TrimSpace(event), e.Type+" "+e.Schema), "signature "+e.Signature, e.EventID)
	if l.printer.isAgain(e.EventID) {
		line += "  (again)"
	}
	switch f := e.Forward; {
	case e.Unsent != "":
		line += "  not rendered: " + e.Unsent
	case f == nil:
	case f.Error != "":
		line += "  → " + f.Error
	default:
		line += fmt.Sprintf("  → %d in %.0f ms", f.Status, f.MS)
	}
	l.printer.print(line, wrap(fields)...)
	return err
}

// handled moves the place behind an event, unless --forward has to take it first. An event
// that the API could not render is not passed where somebody relies on each one.
func (l *feedListener) handled(e *pulledEvent) error {
	if e.Unsent != "" && (l.forward != nil || l.file.path != "") {
		return &notRendered{e.EventID, e.Unsent}
	}
	if l.file.path != "" && e.Forward != nil && !e.Forward.taken() {
		return &notTaken{e.EventID, e.Forward}
	}
	l.refused.Reset()
	l.handledNow++
	l.readAgain = false
	l.cursor = e.Cursor
	return l.file.keep(l.cursor)
}
