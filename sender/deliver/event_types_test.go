package deliver

import (
	"testing"
	"time"

	"walhook/outbox"
	"walhook/schemas/catalog"
)

// What people are shown as an event's body is what the sender makes of it, in each format.
func TestRender_MakesTheExamplesOfTheCatalog(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for _, c := range []*catalog.Catalog{catalog.Carrier(), catalog.Platform()} {
		for _, typ := range c.EventTypes() {
			if len(typ.Examples) != len(typ.Forms) || len(typ.Forms) == 0 {
				t.Errorf("%s: %d examples for %d forms", typ.Name, len(typ.Examples), len(typ.Forms))
			}
			for _, x := range typ.Examples {
				event := outbox.Event{Type: x.EventType, Schema: x.EventSchema, Format: typ.Format, Body: x.JSON}
				if typ.Format == "" { // the event log holds envelopes of the record feed
					event.Body = x.Envelope
				}
				event.WebhookID, event.Record, event.CommittedAt = "evt_0000000001A2B3C8_12", x.Record, time.Date(2026, time.March, 9, 14, 30, 0, 0, time.UTC)
				for format, want := range map[string][]byte{"envelope": x.Envelope, "json": x.JSON, "form": x.Form, "cloudevents": x.CloudEvents} {
					sent, err := render(&outbox.EndpointSettings{Format: format}, &event)
					if err != nil || string(sent.body) != string(want) || len(want) == 0 {
						t.Errorf("%s as %s: sent %s, example %s, %v", typ.Name, format, sent.body, want, err)
					}
				}
				seen[typ.Kind]++
			}
		}
	}
	if seen[catalog.KindRecord] != 26 || seen[catalog.KindResult] != 2 || seen[catalog.KindEvent] < 40 {
		t.Errorf("examples by kind: %v", seen)
	}
}

// What the documents for tools say of batches is what the sender makes of them.
func TestBatchHeaders_AreThoseOfARequest(t *testing.T) {
	headers := map[string]string{}
	for _, h := range catalog.BatchHeaders() {
		headers[h.Name] = h.Example
	}
	if want := batchID(headers[headerEventIDs]); headers["webhook-id"] != want {
		t.Errorf("the example is %q, want %q of %q", headers["webhook-id"], want, headers[headerEventIDs])
	}
	for _, form := range catalog.BatchForms(nil, nil) {
		if form.Schema["maxItems"] != outbox.MaxBatch {
			t.Errorf("%s: at most %v events, want %d", form.MediaType, form.Schema["maxItems"], outbox.MaxBatch)
		}
	}
}
