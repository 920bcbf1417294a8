package catalog

import (
	"cmp"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// EventType is an event of the catalog as account users see it.
type EventType struct {
	Description
	Kind string // record, result or event
	// Examples are bodies, one for each of Forms. Their values are made up.
	Examples []Example
	// Schema is the JSON Schema of the body in the format that the event has by itself.
	Schema map[string]any
}

// The kinds of event types.
const (
	KindRecord = "record" // of the record feed
	KindResult = "result" // of work that finishes later
	KindEvent  = "event"  // emitted by the carrier's software, or derived from a change
)

// Example is a body in each format for which a webhook may ask, byte for byte as the
// sender writes it.
type Example struct {
	Envelope, JSON, Form, CloudEvents []byte
	// EventType, EventSchema and Record are the event's columns in the event log.
	EventType, EventSchema, Record string
}

// EventTypes lists every event of the catalog: records in order of name, results, then
// hooks and derived events in the order of the file.
func (c *Catalog) EventTypes() []EventType {
	var records, others []EventType
	for _, d := range c.Describe() {
		if d.Record {
			d.About = cmp.Or(d.About, "A record of "+d.Name+" was inserted, updated or deleted. data holds the fields that the change carries.")
			records = append(records, EventType{
				Description: d, Kind: KindRecord, Schema: d.jsonSchema(), Examples: []Example{recordExample(&d)},
			})
			continue
		}
		others = append(others, EventType{Description: d, Kind: KindEvent, Schema: d.jsonSchema(), Examples: c.eventExamples(&d)})
	}
	return append(append(records, resultType()), others...)
}

// resultType describes async results, whose body has no other fields.
func resultType() EventType {
	r := Result{Account: exampleAccount, Type: "update", Schema: "sms_enablement", Status: "error", Verbose: "already provisioned"}
	t := EventType{Kind: KindResult, Schema: asyncResultSchema(), Description: Description{
		Name: resultName, About: "The result of work that finished later, such as enabling SMS on a number.",
		Forms: []Form{{Fields: []FieldDescription{
			{Name: "type", Type: "string"},
			{Name: "schema", Type: "string", About: "the kind of work"},
			{Name: "status", Type: "string"},
			{Name: "verbose", Type: "string", About: "for people"},
		}}},
	}}
	body := r.AppendEnvelope(nil)
	t.Examples = []Example{{
		EventType: r.Type, EventSchema: r.Schema, Record: "result/" + r.Schema, Envelope: body, JSON: body, Form: formOf(body),
	}}
	t.Examples[0].setCloudEvent(body)
	return t
}

// recordExample is an update of a record.
func recordExample(d *Description) Example {
	var data []schemas.Member
	for _, f := range d.Forms[0].Fields {
		data = append(data, schemas.Member{Name: f.Name, Value: exampleColumn(f.Name)})
	}
	typ := schemas.Update.String()
	x := Example{EventType: typ, EventSchema: d.Name, Record: d.Name + ":" + exampleKey, Envelope: envelopeOf(typ, d.Name, data)}
	x.JSON = schemas.AppendObject(nil, []schemas.Member{
		schemas.StringMember("type", []byte(typ)),
		schemas.StringMember("schema", []byte(d.Name)),
		{Name: "data", Value: schemas.AppendObject(nil, data)},
	})
	x.Form = formOf(x.Envelope)
	x.setCloudEvent(schemas.AppendObject(nil, data))
	return x
}

func envelopeOf(typ, schema string, data []schemas.Member) []byte {
	return schemas.AppendObject(nil, []schemas.Member{
		schemas.StringMember("type", []byte(typ)),
		schemas.StringMember("schema", []byte(schema)),
		schemas.StringMember("data", schemas.AppendObject(nil, data)),
	})
}

// setCloudEvent makes an example's CloudEvent. Its id, subject and time are made up.
func (x *Example) setCloudEvent(data []byte) {
	id := exampleWebhookID
	if x.EventSchema == TestName && x.EventType == TestName {
		id = exampleTestID
	}
	e := schemas.CloudEvent{
		ID: id, Schema: x.EventSchema, Type: x.EventType, Record: x.Record, Time: exampleTime, Data: data,
	}
	x.CloudEvents = e.Append(nil)
}

// formOf writes an object as a form; nil if it is none, which no example is.
func formOf(body []byte) []byte {
	members, err := schemas.ParseObject(body)
	if err != nil {
		return nil
	}
	form, err := schemas.AppendForm(nil, members)
	if err != nil {
		return nil
	}
	return form
}

// eventExamples are one body for each form of an event.
func (c *Catalog) eventExamples(d *Description) (examples []Example) {
	if hook := c.byHook[d.Name]; hook != nil {
		for i := range d.Forms {
			examples = append(examples, c.hookExample(hook, &d.Forms[i]))
		}
		return examples
	}
	for _, rule := range c.derived {
		if rule.Hook == d.Name {
			examples = append(examples, rule.example())
		}
	}
	return examples
}

// hookExample is the body of an event whose payload has all fields.
func (c *Catalog) hookExample(h *Hook, form *Form) Example {
	fields := h.Fields
	var payload []schemas.Member
	if form.If != "" {
		payload = append(payload, schemas.StringMember(form.Key, []byte(form.If)))
		for _, v := range h.Variants.Of {
			if v.Value == form.If {
				fields = v.Fields
			}
		}
	}
	for _, f := range fields {
		if f.Source == FromPayload {
			payload = append(payload, schemas.StringMember(f.Key, []byte(exampleText(f.Key))))
		}
	}
	action, record := "event", "event/"+exampleUnnamed
	if order := textOf(payload, h.Order); h.Order != "" && order != "" {
		record = "event/" + order
	}
	if h.Name == hookObject { // walhook makes it, of a change of a record
		action = "doc_edited"
		payload = schemas.SetMember(payload, schemas.StringMember("action", []byte(action)))
		payload = schemas.SetMember(payload, schemas.StringMember("id", []byte("42")))
		if len(c.Schemas) > 0 {
			payload = schemas.SetMember(payload, schemas.StringMember("type", []byte(c.Schemas[0].Name)))
			record = "object/" + c.Schemas[0].Name + ":" + exampleKey
		}
	}
	event := HookEvent{Hook: h, fields: fields, emitted: Emitted{Account: exampleAccount, Hook: h.Name, Payload: payload}}
	return exampleOf(event.Body(exampleTime), action, h.Name, record)
}

// hookObject is the hook whose events are all changes of records.
const hookObject = "object"

// example is the body of a derived event of the rule's first case.
func (d *Derivation) example() Example {
	name := ""
	if len(d.cases) > 0 {
		name = d.cases[0].Name
	}
	var members []schemas.Member
	for _, f := range d.fields {
		m := schemas.Member{Name: f.Name}
		switch f.Source {
		case fromLiteral:
			m.Value = f.Default.AppendJSON(nil)
		case fromCase:
			m = schemas.StringMember(f.Name, []byte(name))
		case fromOwner:
			m.Value = appendOwner(nil, exampleAccount, f.Number)
		case fromChanged:
			m.Value = []byte(`["status"]`)
			if len(f.Watched) > 0 {
				m.Value = append(pgjson.AppendString([]byte{'['}, []byte(f.Watched[0].Name)), ']')
			}
		case fromCount:
			m.Value = []byte("1")
		default:
			m.Value = exampleColumn(f.Column)
		}
		members = append(members, m)
	}
	return exampleOf(schemas.AppendObject(nil, members), name, d.Hook, "derived/"+d.Schema+":"+exampleKey)
}

// exampleOf is the body of an event that is not of the record feed.
func exampleOf(body []byte, typ, schema, record string) Example {
	members, _ := schemas.ParseObject(body) // an object that we wrote
	x := Example{EventType: typ, EventSchema: schema, Record: record, Envelope: envelopeOf(typ, schema, members), JSON: body, Form: formOf(body)}
	x.setCloudEvent(body)
	return x
}
