package deliver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/outbox"
)

func batchOf(n int) []outbox.Event {
	events := make([]outbox.Event, n)
	for i := range events {
		events[i] = outbox.Event{
			WebhookID: fmt.Sprintf("evt_%016X_%d", 0x1A2B3C8, i+1), Schema: "dids", Type: "update", Record: fmt.Sprint("dids:", i),
			Body: fmt.Appendf(nil, `{"type":"update","schema":"dids","data":"{\"id\":%d}"}`, i), CommittedAt: time.Unix(1700000000, 0),
		}
	}
	return events
}

// Each element of a batch is the body that its event has by itself.
func TestBatch_ElementsAreTheBodiesOfSingleEvents(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"", formatEnvelope, formatJSON, formatCloud} {
		for _, custom := range []string{"", `{"site":"Chicago"}`} {
			t.Run(format+" "+custom, func(t *testing.T) {
				t.Parallel()
				one := &outbox.EndpointSettings{HTTPVerb: "post", Format: format}
				if custom != "" {
					one.CustomData = []byte(custom)
				}
				many := *one
				many.Batch = 100
				events := batchOf(3)
				m, err := batchRequest(&many, events)
				if err != nil {
					t.Fatal(err)
				}
				var elements []json.RawMessage
				if err := json.Unmarshal(m.body, &elements); err != nil || len(elements) != len(events) {
					t.Fatalf("%v: %s", err, m.body)
				}
				for i := range events {
					single, err := render(one, &events[i])
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(elements[i], single.body) {
						t.Errorf("element %d is %s, want %s", i, elements[i], single.body)
					}
				}
				want := "application/json"
				if format == formatCloud {
					want = "application/cloudevents-batch+json"
				}
				if m.contentType != want {
					t.Errorf("type %s, want %s", m.contentType, want)
				}
			})
		}
	}
}

// The id of a batch is made of its events' ids, and of nothing else.
func TestBatch_HasTheSameIDForTheSameEvents(t *testing.T) {
	t.Parallel()
	s := &outbox.EndpointSettings{HTTPVerb: "post", Batch: 100}
	id := func(events []outbox.Event) string {
		m, err := batchRequest(s, events)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(m.eventIDs))
		if want := "batch_" + hex.EncodeToString(sum[:])[:32]; m.id != want {
			t.Errorf("id %s, want %s of %s", m.id, want, m.eventIDs)
		}
		return m.id
	}
	events := batchOf(3)
	first := id(events)
	events[1].Attempts, events[1].ReadAt = 2, time.Now()
	if again := id(events); again != first {
		t.Errorf("id %s, then %s", first, again)
	}
	for name, other := range map[string][]outbox.Event{"fewer": events[:2], "others": events[1:], "one": events[:1], "another order": {events[1], events[0], events[2]}} {
		if id(other) == first {
			t.Errorf("%s: the same id", name)
		}
	}
}

// A CloudEvents SDK reads a batch, with all that the single events have.
func TestBatch_OfCloudEventsIsReadByTheirSDK(t *testing.T) {
	t.Parallel()
	events := batchOf(100)
	m, err := batchRequest(&outbox.EndpointSettings{HTTPVerb: "post", Format: formatCloud, Batch: 100}, events)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(m.method, "/", bytes.NewReader(m.body))
	r.Header.Set("Content-Type", m.contentType)
	got, err := binding.ToEvents(t.Context(), cehttp.NewMessageFromHttpRequest(r), r.Body)
	if err != nil {
		t.Fatalf("%v: %.300s", err, m.body)
	}
	if len(got) != len(events) {
		t.Fatalf("%d events, want %d", len(got), len(events))
	}
	for i, e := range got {
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
		if e.ID() != events[i].WebhookID || e.Type() != "walhook.dids.update" || string(e.Data()) != fmt.Sprintf(`{"id":%d}`, i) {
			t.Errorf("event %d is %s", i, e)
		}
	}
}

// The official library verifies a batch on the wire, from both clients; the header names
// each event, and a list that somebody changed is not the one of the id.
func TestBatch_IsSignedAsOneBody(t *testing.T) {
	t.Parallel()
	library, err := standardwebhooks.NewWebhook(secretA)
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range []Client{ClientWalhook, ClientNetHTTP} {
		for _, n := range []int{1, 2, 100} {
			t.Run(fmt.Sprint(client, " ", n), func(t *testing.T) {
				t.Parallel()
				events := batchOf(n)
				var body []byte
				var header http.Header
				receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					header = r.Header.Clone()
					body, _ = io.ReadAll(r.Body)
				}))
				defer receiver.Close()
				h, err := NewHTTP(Config{Client: client, AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				e := outbox.Endpoint{ID: 1, URL: receiver.URL, Secrets: []string{secretA}, Settings: &outbox.EndpointSettings{HTTPVerb: "post", Batch: 100}}
				var res Result
				if n == 1 {
					res = h.Deliver(t.Context(), e, events[0])
				} else {
					res = h.DeliverBatch(t.Context(), e, events)
				}
				if res.Outcome != Delivered {
					t.Fatalf("%+v", res)
				}
				var elements []json.RawMessage
				if err := json.Unmarshal(body, &elements); err != nil || len(elements) != n {
					t.Errorf("%v, %d elements, want %d", err, len(elements), n)
				}
				if err := library.Verify(body, header); err != nil {
					t.Error(err)
				}
				list := header.Get("webhook-event-ids")
				ids := make([]string, n) // in the order of the elements
				for i := range ids {
					ids[i] = events[i].WebhookID
				}
				if list != strings.Join(ids, ",") || batchID(list) != header.Get("webhook-id") {
					t.Errorf("webhook-id %s of %s", header.Get("webhook-id"), list)
				}
			})
		}
	}
}
