package deliver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"walhook/outbox"
)

// typeCloudBatch is the type of several CloudEvents (JSON Event Format for CloudEvents
// 1.0.2, 4).
const typeCloudBatch = "application/cloudevents-batch+json"

// namedRequest is a request with what names it.
type namedRequest struct {
	request
	id       string // the webhook-id
	eventIDs string // the webhook-event-ids of a batch; "" for none
	account  string // the walhook-account of a feed; "" for none
}

// batch is the id of a batch; "" for a request that has its event's own.
func (m *namedRequest) batch() string {
	if m.eventIDs == "" {
		return ""
	}
	return m.id
}

// requestOf renders one event: for an endpoint with batches as a batch of one.
func requestOf(e *outbox.Endpoint, event *outbox.Event) (namedRequest, error) {
	s := e.Settings
	if s != nil && s.Batch > 0 && s.HTTPVerb != "get" {
		return batchRequest(s, []outbox.Event{*event})
	}
	r, err := render(s, event)
	m := namedRequest{request: r, id: event.WebhookID}
	if e.Feed {
		m.account = headerText(event.Account)
	}
	return m, err
}

// batchRequest renders events as a JSON array, each element byte for byte as the event
// is sent by itself. The same events have the same id.
func batchRequest(s *outbox.EndpointSettings, events []outbox.Event) (m namedRequest, err error) {
	size := len("[]")
	for i := range events {
		size += len(events[i].Body) + len(",")
	}
	body, ids := append(make([]byte, 0, size), '['), []byte(nil)
	for i := range events {
		one, err := render(s, &events[i])
		if err != nil {
			return namedRequest{}, fmt.Errorf("event %s: %w", events[i].WebhookID, err)
		}
		if m.request = one; i > 0 {
			body, ids = append(body, ','), append(ids, ',')
		}
		body, ids = append(body, one.body...), append(ids, events[i].WebhookID...)
	}
	if m.contentType == typeCloud {
		m.contentType = typeCloudBatch
	}
	m.body, m.eventIDs = append(body, ']'), string(ids)
	m.id = batchID(m.eventIDs)
	return m, nil
}

// batchID is the webhook-id of a batch, by which receivers know it again. As the
// signature covers it, it covers the list of events.
func batchID(eventIDs string) string {
	sum := sha256.Sum256([]byte(eventIDs))
	return "batch_" + hex.EncodeToString(sum[:16])
}
