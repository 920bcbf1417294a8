package catalog

import (
	"strconv"
	"time"

	"walhook/schemas"
)

// TestName is the schema and the type of a test event that is no example of the catalog's,
// and the hook that its body names.
const TestName = "test"

// TestKey names that event in the documents for tools. A schema may be called test, and
// none of a file begins with webhook.
const TestKey = ownNamespace + TestName

// TestAbout describes that event for people.
const TestAbout = "What a test sends unless it names an event of the catalog; its webhook-id begins with test_. " +
	"Its format is envelope for a webhook of the record feed, and otherwise that of the webhook's own events, json or form, unless the webhook sets one."

// TestEvent is that event, for one webhook.
type TestEvent struct {
	Webhook, Account string
	At               time.Time
}

// Record is what the event is about, as the event log names records.
func (e *TestEvent) Record() string { return TestName + "/" + e.Account }

// Envelope is the body for a webhook of the record feed.
func (e *TestEvent) Envelope() []byte { return envelopeOf(TestName, TestName, e.data()) }

// Object is the body for any other webhook.
func (e *TestEvent) Object() []byte {
	return schemas.AppendObject(nil, []schemas.Member{
		schemas.StringMember("hook_event", []byte(TestName)),
		{Name: "timestamp", Value: strconv.AppendInt(nil, e.At.Unix()+gregorianOffset, 10)},
		schemas.StringMember("account_id", []byte(e.Account)),
		schemas.StringMember("webhook_id", []byte(e.Webhook)),
	})
}

// data is the record of the envelope.
func (e *TestEvent) data() []schemas.Member {
	return []schemas.Member{
		schemas.StringMember("webhook_id", []byte(e.Webhook)),
		schemas.StringMember("account_id", []byte(e.Account)),
	}
}

// TestForms returns the bodies of that event: in each format that of the record feed, and
// that of every other webhook. The caller may change the schemas.
func TestForms() []DeliveryForm {
	webhook := FieldDescription{Name: "webhook_id", Type: "string", About: "the webhook that is tested"}
	account := FieldDescription{Name: "account_id", Type: "string", About: "the account of the webhook"}
	record := formSchema(&Form{Fields: []FieldDescription{webhook, account}}, false)
	object := formSchema(&Form{Fields: []FieldDescription{
		{Name: "hook_event", Type: "string", Values: []literal{{literalString, TestName}}},
		{Name: "timestamp", Type: "integer", About: "seconds since the year 0"},
		account, webhook,
	}}, false)
	text := func(object jsonSchema) jsonSchema {
		return jsonSchema{"type": "string", "contentMediaType": mediaJSON, "contentSchema": object}
	}
	envelope := func(data jsonSchema) jsonSchema {
		own := jsonSchema{"type": "string", "const": TestName}
		return jsonSchema{
			"type": "object", "properties": jsonSchema{"type": own, "schema": own, "data": data},
			"required": []string{"type", "schema", "data"}, "additionalProperties": false,
		}
	}
	cloudEvent := func(data jsonSchema) jsonSchema {
		return cloudEventOf(TestName, jsonSchema{"const": "walhook." + TestName + "." + TestName}, data)
	}
	either := func(record, object jsonSchema) jsonSchema {
		return jsonSchema{"title": "A test event", "anyOf": []jsonSchema{record, object}}
	}
	forms := []DeliveryForm{
		{Format: "envelope", MediaType: mediaJSON, Schema: either(envelope(text(record)), envelope(text(object)))},
		{Format: "json", MediaType: mediaJSON, Schema: either(envelope(record), object)},
		{Format: "form", MediaType: mediaForm, Schema: either(envelope(text(record)), textFields(object))},
		{Format: "cloudevents", MediaType: mediaCloudEvents, Schema: either(cloudEvent(record), cloudEvent(object))},
	}
	for _, x := range testExamples() {
		for i, body := range [][]byte{x.Envelope, x.JSON, x.Form, x.CloudEvents} {
			forms[i].Examples = append(forms[i].Examples, body)
		}
	}
	return forms
}

// testExamples are the event for a webhook of the record feed, and for any other one.
func testExamples() []Example {
	e := TestEvent{Webhook: "a1b2c3d4", Account: exampleAccount, At: exampleTime}
	data := schemas.AppendObject(nil, e.data())
	record := Example{EventType: TestName, EventSchema: TestName, Record: e.Record(), Envelope: e.Envelope()}
	record.JSON = schemas.AppendObject(nil, []schemas.Member{
		schemas.StringMember("type", []byte(TestName)),
		schemas.StringMember("schema", []byte(TestName)),
		{Name: "data", Value: data},
	})
	record.Form = formOf(record.Envelope)
	record.setCloudEvent(data)
	return []Example{record, exampleOf(e.Object(), TestName, TestName, e.Record())}
}
