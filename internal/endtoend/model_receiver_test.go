package endtoend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// modelCopy is what one receiver has made of the events that arrived, in their order.
type modelCopy struct {
	// whole says that it has been told of every record from its beginning on, but for extras,
	// so that nothing is an update of what it does not have.
	whole bool
	rows  map[string]modelRow // by schema and key
	// newest is the highest n of each record that arrived, also of records that are gone.
	newest map[string]int64
	seen   map[string]bool // webhook-ids
	kinds  map[string]int  // events by the first word of their id: gap, sync, or lsn for the stream
}

type modelRow struct {
	n    int64
	data string
}

// modelReceiver keeps a copy for each path that is posted to, and judges each event.
type modelReceiver struct {
	server *httptest.Server

	mu     sync.Mutex
	copies map[string]*modelCopy // guarded by mu, by path
	wrong  []string              // guarded by mu
	random *rand.Rand            // guarded by mu
	fails  bool                  // guarded by mu: some requests are answered with 500
	shapes map[uint64]bool       // guarded by mu, by commit: an item of it had the fields of the second catalog
}

func newModelReceiver(t *testing.T, seed uint64) *modelReceiver {
	r := &modelReceiver{copies: map[string]*modelCopy{}, shapes: map[uint64]bool{}, random: rand.New(rand.NewPCG(seed, 3))}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *modelReceiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fails && r.random.IntN(40) == 0 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	copied := r.copies[request.URL.Path]
	if copied == nil {
		copied = newModelCopy()
		r.copies[request.URL.Path] = copied
	}
	id := request.Header.Get("webhook-id")
	if copied.seen[id] {
		return
	}
	copied.seen[id] = true
	r.noteShape(id, body)
	if err := copied.apply(id, body); err != nil {
		r.wrong = append(r.wrong, fmt.Sprintf("%s %s: %v: %s", request.URL.Path, id, err, body))
	}
}

// noteShape keeps which catalog made an event of an item. The caller holds mu.
func (r *modelReceiver) noteShape(id string, body []byte) {
	var at uint64
	if n, _ := fmt.Sscanf(id, "evt_%16X_", &at); n != 1 || !bytes.Contains(body, []byte(`"schema":"items"`)) || bytes.Contains(body, []byte(`"type":"delete"`)) {
		return
	}
	second := bytes.Contains(body, []byte("note"))
	if before, known := r.shapes[at]; known && before != second {
		r.wrong = append(r.wrong, fmt.Sprintf("%s: its transaction has events by both catalogs", id))
	}
	r.shapes[at] = second
}

// takeShapes returns which catalog made the events of each commit, and forgets it.
func (r *modelReceiver) takeShapes() map[uint64]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	shapes := r.shapes
	r.shapes = map[uint64]bool{}
	return shapes
}

func newModelCopy() *modelCopy {
	return &modelCopy{rows: map[string]modelRow{}, newest: map[string]int64{}, seen: map[string]bool{}, kinds: map[string]int{}}
}

// begin says that the receiver of a path begins with its account.
func (r *modelReceiver) begin(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.copies[path] = newModelCopy()
	r.copies[path].whole = true
}

// modelKeys are the columns of each schema's key.
var modelKeys = map[string][]string{"items": {"id"}, "parts": {"id"}, "places": {"area", "num"}, "extras": {"id"}}

// apply makes an event a part of the copy. n only grows, so an event that says less than an
// earlier one, or brings back what is gone, is one that goes backwards.
func (c *modelCopy) apply(id string, body []byte) error {
	var event struct{ Type, Schema, Data string }
	if err := json.Unmarshal(body, &event); err != nil {
		return err
	}
	source, _, named := strings.Cut(id, "_")
	if source != "gap" && source != "sync" || !named {
		source = "stream"
	}
	c.kinds[source+" "+event.Type]++
	keys, known := modelKeys[event.Schema]
	if !known {
		if event.Schema == "resync" {
			return nil
		}
		return fmt.Errorf("unknown schema %q", event.Schema)
	}
	var data map[string]any
	decoder := json.NewDecoder(strings.NewReader(event.Data))
	decoder.UseNumber()
	if err := decoder.Decode(&data); err != nil {
		return err
	}
	path := []string{event.Schema}
	for _, key := range keys {
		path = append(path, fmt.Sprint(data[key]))
	}
	record := strings.Join(path, "/")
	before, there := c.rows[record]
	newest, known := c.newest[record]
	if event.Type == "delete" {
		delete(c.rows, record)
		return nil
	}
	number, ok := data["n"].(json.Number)
	if !ok {
		return fmt.Errorf("no n")
	}
	n, err := number.Int64()
	if err != nil {
		return err
	}
	c.rows[record] = modelRow{n, event.Data}
	c.newest[record] = max(newest, n)
	switch {
	case known && n < newest:
		return fmt.Errorf("goes back to %d from %d", n, newest)
	case known && !there && n == newest:
		return fmt.Errorf("is back at %d after its delete", n)
	case c.whole && event.Type == "update" && !there && event.Schema != "extras":
		return fmt.Errorf("is an update of what it does not have")
	case source == "gap" && there && before.data == event.Data:
		return fmt.Errorf("is told again after a gap, and had not changed")
	}
	return nil
}

// forget drops what a receiver has of a schema, as one does that is told of it no more.
func (r *modelReceiver) forget(schema string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.copies {
		of := func(record string) bool { return strings.HasPrefix(record, schema+"/") }
		maps.DeleteFunc(c.rows, func(record string, _ modelRow) bool { return of(record) })
		maps.DeleteFunc(c.newest, func(record string, _ int64) bool { return of(record) })
	}
}

// numbers returns each record of a copy with its n.
func (r *modelReceiver) numbers(path string) map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	numbers := map[string]int64{}
	if c := r.copies[path]; c != nil {
		for record, row := range c.rows {
			numbers[record] = row.n
		}
	}
	return numbers
}

// counts are the events of all copies by kind.
func (r *modelReceiver) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[string]int{}
	for _, c := range r.copies {
		for kind, n := range c.kinds {
			counts[kind] += n
		}
	}
	return counts
}

func (r *modelReceiver) judged() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wrong[:len(r.wrong):len(r.wrong)]
}
