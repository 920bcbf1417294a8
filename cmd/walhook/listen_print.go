package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	maxHookBytes = 16<<20 + 64<<10 // a little more than walhook's own limit
	maxHookIDs   = 10_000          // ids kept to recognize repetitions
	lineWidth    = 100
	valueWidth   = 60
)

// hookPrinter prints each request as a few lines for a person.
type hookPrinter struct {
	verifier *standardwebhooks.Webhook // nil: signatures are not checked
	status   int
	now      func() time.Time

	mu   sync.Mutex // guards what follows
	out  io.Writer
	seen map[string]struct{}
	ids  []string // the keys of seen, the oldest first
}

func newHookPrinter(o listenOptions, out io.Writer) (*hookPrinter, error) {
	p := &hookPrinter{status: o.status, now: time.Now, out: out, seen: map[string]struct{}{}}
	var faults []error
	if o.status < 200 || o.status > 599 {
		faults = append(faults, fmt.Errorf("--status %d: want 200 to 599", o.status))
	}
	if _, _, err := net.SplitHostPort(o.addr); err != nil {
		faults = append(faults, fmt.Errorf("--addr %q: want host:port, such as 127.0.0.1:9090", o.addr))
	}
	if o.secret != "" {
		var err error
		p.verifier, err = standardwebhooks.NewWebhook(o.secret)
		if err != nil || !strings.HasPrefix(o.secret, "whsec_") || o.secret == "whsec_" {
			faults = append(faults, errors.New("--secret: want whsec_ and base64, as 'walhook endpoints secret <account>' prints it"))
		}
	}
	return p, errors.Join(faults...)
}

// ServeHTTP prints the request and answers it.
func (p *hookPrinter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHookBytes))
	if err != nil {
		status := http.StatusBadRequest
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			status = http.StatusRequestEntityTooLarge
		}
		p.print(p.head(r, "unreadable body: "+err.Error()))
		w.WriteHeader(status)
		return
	}
	id := r.Header.Get(standardwebhooks.HeaderWebhookID)
	event, fields := readEnvelope(body)
	line := p.head(r, event, "signature "+p.check(body, r.Header), id)
	if p.isAgain(id) {
		line += "  (again)"
	}
	p.print(line, wrap(fields)...)
	w.WriteHeader(p.status)
}

func (p *hookPrinter) head(r *http.Request, parts ...string) string {
	if r.Method != http.MethodPost || r.URL.Path != "/" {
		parts = append(parts, r.Method+" "+r.URL.Path)
	}
	var line strings.Builder
	line.WriteString(p.now().Format("15:04:05.000"))
	for _, part := range parts {
		if part != "" {
			line.WriteString("  " + part)
		}
	}
	return line.String()
}

// check verifies a signature (Standard Webhooks 1.0) and returns the result in words.
func (p *hookPrinter) check(body []byte, header http.Header) string {
	if p.verifier == nil {
		return "not checked"
	}
	switch err := p.verifier.Verify(body, header); {
	case err == nil:
		return "ok"
	case errors.Is(err, standardwebhooks.ErrRequiredHeaders):
		return "BAD: webhook-id, webhook-timestamp or webhook-signature is missing"
	case errors.Is(err, standardwebhooks.ErrMessageTooOld):
		return "BAD: the timestamp is more than five minutes old"
	case errors.Is(err, standardwebhooks.ErrMessageTooNew):
		return "BAD: the timestamp is more than five minutes ahead"
	case errors.Is(err, standardwebhooks.ErrNoMatchingSignature):
		return "BAD: signed with another secret, or the body was changed"
	default:
		return "BAD: malformed headers"
	}
}

// isAgain reports whether an id came before, among the last maxHookIDs.
func (p *hookPrinter) isAgain(id string) bool {
	if id == "" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.seen[id]; again {
		return true
	}
	if len(p.ids) == maxHookIDs {
		delete(p.seen, p.ids[0])
		p.ids = p.ids[1:]
	}
	p.seen[id] = struct{}{}
	p.ids = append(p.ids, id)
	return false
}

func (p *hookPrinter) print(line string, more ...string) {
	var text strings.Builder
	text.WriteString(printable(line) + "\n")
	for _, l := range more {
		text.WriteString("    " + printable(l) + "\n")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.out, text.String()) // there is nowhere to report an error
}

// readEnvelope returns the type of an event and its fields as name=value: those of
// data, or without data the other members of the envelope.
func readEnvelope(body []byte) (event string, fields []string) {
	members, err := readObject(body)
	if err != nil {
		return "not an envelope", []string{shorten(string(body), 4*valueWidth)}
	}
	var typ, schema string
	for _, m := range members {
		switch m.name {
		case "type":
			typ = m.text()
		case "schema":
			schema = m.text()
		case "data":
			data, err := readObject([]byte(m.text()))
			if err != nil {
				fields = append(fields, "data="+shorten(m.text(), valueWidth))
			}
			for _, d := range data {
				fields = append(fields, d.String())
			}
		default:
			fields = append(fields, m.String())
		}
	}
	return strings.TrimSpace(typ + " " + schema), fields
}

// member is one member of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// text returns the value of a string, otherwise the JSON itself.
func (m member) text() string {
	var s string
	if json.Unmarshal(m.value, &s) == nil && m.value[0] == '"' {
		return s
	}
	return string(m.value)
}

// String returns name=value. A number keeps its digits; a string stays quoted.
func (m member) String() string {
	if m.value[0] == '"' {
		return m.name + "=" + strconv.Quote(shorten(m.text(), valueWidth))
	}
	return m.name + "=" + shorten(string(m.value), valueWidth)
}

// readObject reads a JSON object and keeps the order of its members.
func readObject(text []byte) ([]member, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var members []member
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		var m member
		m.name, _ = name.(string) // the decoder accepts nothing else
		if err := decoder.Decode(&m.value); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("trailing data after the object")
	}
	return members, nil
}

// wrap breaks fields into lines of lineWidth.
func wrap(fields []string) []string {
	var lines []string
	for _, field := range fields {
		last := len(lines) - 1
		if last >= 0 && utf8.RuneCountInString(lines[last])+2+utf8.RuneCountInString(field) <= lineWidth {
			lines[last] += "  " + field
		} else {
			lines = append(lines, field)
		}
	}
	return lines
}

func shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
