package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"time"

	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/schemas/catalog"
)

// testFields say which event a test sends. Without any it is one that no catalog has.
type testFields struct {
	Hook   *string `json:"hook,omitempty" minLength:"1" maxLength:"64" doc:"the name of an event of the catalog, as GET …/event-types lists it: the test is its example"`
	Schema *string `json:"schema,omitempty" minLength:"1" maxLength:"128" doc:"the name of a schema of the record feed: the test is the example of a change of such a record"`
	Type   *string `json:"type,omitempty" enum:"insert,update,delete" doc:"the change of the record of schema; the default is update"`
}

type testInput struct {
	WebhookInput
	RawBody []byte
}

// askedEvent is the event that a test sends, with warnings.
func (s *subscriptions) askedEvent(ctx context.Context, in *testInput, w *admin.Webhook) (e outbox.Event, warnings []string, err error) {
	var asked testFields
	sent, err := s.edits.readOptional(in.RawBody, s.tests, &asked)
	if err != nil {
		return e, nil, err
	}
	var hook, schema, typ string
	set(&hook, asked.Hook)
	set(&schema, asked.Schema)
	set(&typ, asked.Type)
	switch {
	case hook != "" && (schema != "" || typ != ""):
		return e, nil, badRequest("hook", "goes without schema and type: they are of a record")
	case typ != "" && schema == "":
		return e, nil, badRequest("type", "goes with schema, the name of the record's schema")
	case hook == "" && schema == "":
		return s.testEvent(ctx, w), sent.warnings, nil
	}
	t := s.eventTypeNamed(ctx, hook, schema)
	switch {
	case t == nil && hook != "":
		return e, nil, badRequest("hook", "is no event of the catalog: GET …/event-types lists those of kind event")
	case t == nil:
		return e, nil, badRequest("schema", "is no schema of the catalog: GET …/event-types lists those of kind record and result")
	}
	sample, ok := t.Sample(typ)
	if !ok {
		return e, nil, badRequest("type", "is no type of such an event")
	}
	if !mayGet(w, t, &sample) {
		warnings = append(warnings, "the webhook gets no such events by its present settings: this one is a test alone")
	}
	return outbox.Event{
		Endpoint: w.Endpoint, Record: sample.Record, WebhookID: "test_" + rand.Text(), Schema: sample.Schema, Type: sample.Type,
		CommittedAt: time.Now(), Format: sample.Format, Body: sample.Body,
	}, slices.Concat(sent.warnings, warnings), nil
}

// eventTypeNamed finds an event of the catalog in force: a hook, or a schema.
func (s *subscriptions) eventTypeNamed(ctx context.Context, hook, schema string) *catalog.EventType {
	offer := s.cfg.Offer(ctx)
	if offer.EventTypes == nil {
		return nil
	}
	types := offer.EventTypes()
	for i := range types {
		if t := &types[i]; t.Name == cmp.Or(hook, schema) && (t.Kind == catalog.KindEvent) == (hook != "") {
			return t
		}
	}
	return nil
}

// mayGet reports whether a webhook's settings may let an event of the catalog pass. Its
// target, object type and action are not looked at.
func mayGet(w *admin.Webhook, t *catalog.EventType, sample *catalog.Sample) bool {
	if t.Kind == catalog.KindEvent {
		return w.Hook == t.Name || w.Hook == admin.HookAll || slices.Contains(t.Groups, w.Hook)
	}
	return w.Hook == admin.HookRecords && (t.Kind == catalog.KindResult ||
		(len(w.Schemas) == 0 || slices.Contains(w.Schemas, sample.Schema)) && (len(w.Types) == 0 || slices.Contains(w.Types, sample.Type)))
}
