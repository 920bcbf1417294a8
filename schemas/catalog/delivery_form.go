package catalog

import (
	"encoding/json"
	"maps"
	"slices"

	"walhook/schemas"
)

// DeliveryHeader is a header that every delivery has (Standard Webhooks 1.0, "Webhook
// Headers").
type DeliveryHeader struct {
	Name, About, Example string
}

// DeliveryHeaders returns the headers for a receiver to read, in the order of the request.
func DeliveryHeaders() []DeliveryHeader {
	return []DeliveryHeader{
		{"webhook-id", "names the event; the same through retries and replays. A receiver drops an id that it has seen.", exampleWebhookID},
		{"webhook-timestamp", "when this attempt was made, in seconds since 1970-01-01 UTC. A receiver refuses one that is minutes off.", "1767571200"},
		{"webhook-signature", "v1, a comma, and the Base64 of the HMAC-SHA256 of \"id.timestamp.body\"; two of them, with a space between, while the secret is being rotated.",
			"v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="},
	}
}

// The media types of bodies.
const (
	mediaJSON        = "application/json"
	mediaForm        = "application/x-www-form-urlencoded"
	mediaCloudEvents = "application/cloudevents+json"
)

// DeliveryForm is the body of an event in one of the formats that a webhook may set.
type DeliveryForm struct {
	Format    string // envelope, json, form or cloudevents
	MediaType string
	// Schema is a JSON Schema (2020-12) of the body; for form, of an object with its
	// fields. It uses no keyword that draft 07 reads in another way.
	Schema map[string]any
	// Examples are bodies, one for each form of the event.
	Examples [][]byte
}

// DeliveryForms returns the bodies of an event, that of its own format first. The caller
// may change the schemas.
func (t *EventType) DeliveryForms() []DeliveryForm {
	forms := []DeliveryForm{
		{Format: "envelope", MediaType: mediaJSON, Schema: t.envelopeSchema()},
		{Format: "json", MediaType: mediaJSON, Schema: t.objectSchema()},
		{Format: "form", MediaType: mediaForm, Schema: t.formSchema()},
		{Format: "cloudevents", MediaType: mediaCloudEvents, Schema: t.cloudEventSchema()},
	}
	for _, x := range t.Examples {
		for i, body := range [][]byte{x.Envelope, x.JSON, x.Form, x.CloudEvents} {
			forms[i].Examples = append(forms[i].Examples, body)
		}
	}
	for i := range forms {
		if forms[i].Format == t.ownFormat() {
			forms[0], forms[i] = forms[i], forms[0]
		}
	}
	return forms
}

// ownFormat is the format of the event's bodies unless the webhook sets one.
func (t *EventType) ownFormat() string {
	if t.Format == "" {
		return "envelope"
	}
	return t.Format
}

// envelopeSchema describes {"type","schema","data"} with data as text, which a result has
// no need of.
func (t *EventType) envelopeSchema() jsonSchema {
	if t.Kind != KindEvent {
		return cloneSchema(t.Schema)
	}
	return jsonSchema{
		"title": t.Name,
		"type":  "object",
		"properties": jsonSchema{
			"type":   jsonSchema{"type": "string"},
			"schema": jsonSchema{"const": t.Name},
			"data":   jsonSchema{"type": "string", "contentMediaType": mediaJSON, "contentSchema": t.eventObject()},
		},
		"required":             []string{"type", "schema", "data"},
		"additionalProperties": false,
	}
}

// objectSchema describes a body of the format json.
func (t *EventType) objectSchema() jsonSchema {
	if t.Kind == KindRecord {
		one := cloneSchema(t.Schema)
		one["properties"].(jsonSchema)["data"] = t.recordData()
		return one
	}
	return t.eventObject()
}

// eventObject describes the object of an event. The event's own schema calls each field
// of a form a string; in JSON it may be a number.
func (t *EventType) eventObject() jsonSchema {
	if t.Format != "form" {
		return cloneSchema(t.Schema)
	}
	d := t.Description
	d.Forms = slices.Clone(d.Forms)
	for i := range d.Forms {
		fields := slices.Clone(d.Forms[i].Fields)
		for j := range fields {
			fields[j].Type = ""
		}
		d.Forms[i].Fields = fields
	}
	return eventSchema(&d)
}

// formSchema describes an object with the fields of a form.
func (t *EventType) formSchema() jsonSchema { return textFields(t.Schema) }

// textFields describes the members of an object as a form has them: each is text, by the
// rules of [schemas.Member.Text].
func textFields(of jsonSchema) jsonSchema {
	one := cloneSchema(of)
	if forms, ok := one["anyOf"].([]jsonSchema); ok {
		texts := make([]jsonSchema, len(forms))
		for i := range forms {
			texts[i] = textFields(forms[i])
		}
		one["anyOf"] = texts
	}
	if properties, ok := one["properties"].(jsonSchema); ok {
		for name, property := range properties {
			properties[name] = textField(property.(jsonSchema))
		}
	}
	return one
}

func textField(of jsonSchema) jsonSchema {
	one := maps.Clone(of)
	if of["type"] == "array" {
		delete(one, "items")
		one["contentMediaType"], one["contentSchema"] = mediaJSON, jsonSchema{"type": "array", "items": of["items"]}
	}
	one["type"] = "string"
	if value, ok := of["const"].(json.RawMessage); ok {
		one["const"] = formText(value)
	}
	if values, ok := of["enum"].([]json.RawMessage); ok {
		texts := make([]string, len(values))
		for i := range values {
			texts[i] = formText(values[i])
		}
		one["enum"] = texts
	}
	return one
}

// formText returns a value of JSON as a form has it.
func formText(value json.RawMessage) string {
	text, err := schemas.Member{Value: value}.Text()
	if err != nil {
		return string(value)
	}
	return string(text)
}

// recordData describes the object of a record.
func (t *EventType) recordData() jsonSchema { return formSchema(&t.Forms[0], false) }

// cloudEventSchema describes the structured form of a CloudEvent (CloudEvents 1.0.2, 3).
func (t *EventType) cloudEventSchema() jsonSchema {
	kind, data := jsonSchema{"type": "string", "minLength": 1}, t.eventObject()
	if t.Kind == KindRecord {
		kind = jsonSchema{"enum": []string{"walhook." + t.Name + ".insert", "walhook." + t.Name + ".update", "walhook." + t.Name + ".delete"}}
		data = t.recordData()
	}
	return cloudEventOf(t.Name, kind, data)
}

// cloudEventOf describes an event as a CloudEvent by the schemas of its type and its data.
func cloudEventOf(name string, kind, data jsonSchema) jsonSchema {
	text := jsonSchema{"type": "string", "minLength": 1}
	return jsonSchema{
		"title": name + ", as a CloudEvent",
		"type":  "object",
		"properties": jsonSchema{
			"specversion":     jsonSchema{"const": "1.0"},
			"id":              text,
			"source":          jsonSchema{"const": schemas.CloudEventSource},
			"type":            kind,
			"subject":         text,
			"time":            jsonSchema{"type": "string", "format": "date-time"},
			"datacontenttype": jsonSchema{"const": mediaJSON},
			"customdata":      jsonSchema{"type": "string"},
			"data":            data,
		},
		"required":             []string{"specversion", "id", "source", "type", "time", "datacontenttype", "data"},
		"additionalProperties": false,
	}
}

// cloneSchema copies a schema as deep as its objects are nested.
func cloneSchema(of jsonSchema) jsonSchema {
	one := maps.Clone(of)
	for name, value := range one {
		if inner, ok := value.(jsonSchema); ok {
			one[name] = cloneSchema(inner)
		}
	}
	return one
}
