package catalog

import (
	"bytes"
	"slices"
)

// BatchName names the request that carries several events in the documents for tools. No
// event has a name with a dot that walhook's own documents have.
const BatchName = "records.batch"

const mediaCloudEventsBatch = "application/cloudevents-batch+json"

// maxBatch is the most events of a batch.
const maxBatch = 100

// BatchForm is the body of a batch: an array of bodies, each as the event has it by itself.
type BatchForm struct {
	Format    string // json, also of envelopes, or cloudevents
	MediaType string
	Schema    map[string]any // a JSON Schema (2020-12), of those of the events
	Example   []byte
}

// BatchForms returns the bodies of a webhook that sets batch, which only the record feed
// has: records, results and test events. schemaOf returns the schemas, or references to them, of an event's
// body in a format of [EventType.DeliveryForms].
func BatchForms(types []EventType, schemaOf func(t *EventType, format string) []map[string]any) []BatchForm {
	forms := []BatchForm{{Format: "json", MediaType: mediaJSON}, {Format: "cloudevents", MediaType: mediaCloudEventsBatch}}
	for at, formats := range [][]string{{"envelope", "json"}, {"cloudevents"}} {
		var of []any
		var bodies [][]byte
		for i := range types {
			t := &types[i]
			if t.Kind == KindEvent {
				continue
			}
			for _, format := range formats {
				for _, schema := range schemaOf(t, format) {
					of = append(of, schema)
				}
			}
			if len(bodies) < 2 && len(t.Examples) > 0 {
				body := t.Examples[0].Envelope
				if formats[0] == "cloudevents" {
					body = t.Examples[0].CloudEvents
				}
				bodies = append(bodies, body)
			}
		}
		for _, form := range TestForms() { // a test of such a webhook is a batch, too
			if slices.Contains(formats, form.Format) {
				of = append(of, form.Schema["anyOf"].([]jsonSchema)[0]) // that of the record feed
			}
		}
		forms[at].Schema = jsonSchema{
			"title": "Events of the record feed", "type": "array", "minItems": 1, "maxItems": maxBatch, "items": jsonSchema{"anyOf": of},
		}
		forms[at].Example = append(append([]byte{'['}, bytes.Join(bodies, []byte{','})...), ']')
	}
	return forms
}

// BatchHeaders are the headers of a batch, for a receiver to read.
func BatchHeaders() []DeliveryHeader {
	headers := DeliveryHeaders()
	headers[0].About = "names the batch: batch_, and the first 32 hexadecimal digits of the SHA-256 of webhook-event-ids. The same events have the same one."
	headers[0].Example = "batch_a19ea14b4e14ebe280d120d71bae86d2"
	return append(headers, DeliveryHeader{
		"webhook-event-ids", "the ids of the events, separated by commas, in the order of the elements. A receiver drops an element whose id it has seen.",
		exampleWebhookID + "," + exampleSecondID,
	})
}
