package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// webhookFields are the fields of a webhook that a client may set. An absent field
// keeps its value, or its default in a new webhook; null restores the default. The
// tags alone say which values are allowed, and so does the OpenAPI document, which is
// made of them. Checks that need more than the value are in edit.go.
type webhookFields struct {
	Name                *string        `json:"name,omitempty" maxLength:"128" doc:"a name for people; required to create a webhook, and empty in the account's own alone" example:"New Calls"`
	URI                 *string        `json:"uri,omitempty" maxLength:"4096" doc:"the URL that events are sent to: http or https; required to create a webhook, unless its delivery is pull, and empty where answers show it so" example:"https://my.server.com/calls/new.php"`
	HTTPVerb            *string        `json:"http_verb,omitempty" enum:"post,get,put" default:"post" doc:"get puts the fields into the query"`
	Hook                *string        `json:"hook,omitempty" maxLength:"64" default:"records" doc:"the events to send: records is the record feed, all is every event, otherwise the name of an event or group"`
	Type                *string        `json:"type,omitempty" maxLength:"64" doc:"only events of this type; applies to the hooks object and notifications"`
	Action              *string        `json:"action,omitempty" maxLength:"64" doc:"only events of this action; applies to the hooks object and notifications" example:"doc_created"`
	Schemas             *[]string      `json:"schemas,omitempty" maxItems:"100" nullable:"false" doc:"only records of these schemas; empty means all"`
	Types               *[]recordType  `json:"types,omitempty" maxItems:"3" nullable:"false" doc:"only changes of these types; empty means all"`
	Target              *webhookTarget `json:"target,omitempty" doc:"only events of one number, extension, ring group or queue"`
	Format              *string        `json:"format,omitempty" enum:"envelope,json,form,cloudevents" doc:"the form of the body; the default is the hook's own"`
	Retries             *int           `json:"retries,omitempty" minimum:"0" maximum:"10" doc:"the number of retries of an event; the default is the whole schedule"`
	RateLimit           *float64       `json:"rate_limit,omitempty" minimum:"0" maximum:"10000" doc:"attempts per second at most; 0 means no limit"`
	Batch               *int           `json:"batch,omitempty" minimum:"0" maximum:"100" doc:"the most events that one request carries, as a JSON array; 0 means one event, and no array. Only for the hook records with delivery realtime, http_verb post or put, and no format form"`
	CustomData          map[string]any `json:"custom_data,omitempty" maxProperties:"100" doc:"merged into each event last, so that it overwrites"`
	Headers             headerValues   `json:"headers,omitempty" maxProperties:"10" doc:"static headers of each request; values are stored encrypted and shown as …, which a client sends back to keep one"`
	Enabled             *bool          `json:"enabled,omitempty" default:"true" doc:"false holds events; true first sends the held ones"`
	IncludeSubaccounts  *bool          `json:"include_subaccounts,omitempty" default:"false" doc:"events of sub-accounts too, at any depth"`
	InitialState        *bool          `json:"initial_state,omitempty" default:"false" doc:"whenever the URL is set, begin with all present records as insert events"`
	IncludeInternalLegs *bool          `json:"include_internal_legs,omitempty" default:"false" doc:"events of internal call legs too"`
	Delivery            *string        `json:"delivery,omitempty" enum:"realtime,daily,pull" default:"realtime" doc:"daily sends counts once a day instead of events; pull sends nothing: the webhook has no uri, and its events are read by its feed. Neither becomes pull, nor pull another, later"`
	DailyAt             *string        `json:"daily_at,omitempty" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" default:"00:00" doc:"when a day ends, HH:MM"`
	DailyZone           *string        `json:"daily_zone,omitempty" maxLength:"64" default:"UTC" doc:"the IANA time zone of daily_at" example:"Europe/Berlin"`
}

// webhookTarget is one object of a phone system.
type webhookTarget struct {
	Type string `json:"type" enum:"number,extension,ringGroup,queue"`
	ID   string `json:"id" minLength:"1" maxLength:"128" doc:"as events spell it" example:"+13125551212"`
}

// recordType is the kind of change of a record.
type recordType string

// Schema names the values in the OpenAPI document.
func (recordType) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: []any{"insert", "update", "delete"}}
}

// document reads bodies of requests by the schemas of the OpenAPI document.
type document struct {
	registry huma.Registry
	create   *huma.Schema
	edit     *huma.Schema
}

// newDocument returns a document that allows every name of a hook.
func newDocument(registry huma.Registry) *document {
	d := &document{registry: registry, edit: openSchema(registry, reflect.TypeFor[webhookFields]())}
	created := *d.edit
	created.Required = []string{"name"} // and uri, unless its delivery is pull
	d.create = &created
	return d
}

// openSchema returns a schema that allows unknown fields.
func openSchema(registry huma.Registry, t reflect.Type) *huma.Schema {
	schema := registry.Schema(t, false, "")
	for schema.Ref != "" {
		schema = registry.SchemaFromRef(schema.Ref)
	}
	schema.AdditionalProperties = true
	return schema
}

// bodyOf returns the schema of a whole body.
func bodyOf(data *huma.Schema) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"data": data}, Required: []string{"data"}, AdditionalProperties: true}
}

// shownOnly are read-only fields. A client may leave them in a webhook that it sends
// back. id is one of them, since Kazoo's documents show it in requests.
var shownOnly = []string{"id", "endpoint", "account_id", "state", "disable_reason", "disabled_by", "also_disabled_by", "also_disable_reason", "held_since", "held_reason", "created_at", "changed_at", "health"}

// fields are the members of a body's data that the schema has and whose values it
// allows.
type fields struct {
	known    map[string]json.RawMessage
	null     []string // known members that are null
	warnings []string
	whole    bool // the body could be parsed
	echo     bool // it has what only answers show of a state: a webhook that is sent back
}

const bodyForm = `the body is {"data":{…}}`

// read parses the data of a body. It puts errors into wrong, by field. An error about
// the whole body is the only one.
func (d *document) read(body []byte, schema *huma.Schema, wrong faults) fields {
	in := fields{known: map[string]json.RawMessage{}}
	body = bytes.TrimPrefix(body, []byte("\uFEFF")) // RFC 8259 lets a reader ignore it
	if !utf8.Valid(body) {
		wrong.add(notUTF8(body), kindInvalid, "is not valid UTF-8")
		return in
	}
	if fault := jsonFault(body); fault != "" {
		wrong.add("body", kindInvalid, "%s", fault)
		return in
	}
	if checkStrict(body, wrong); len(wrong) > 0 {
		return in
	}
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(body, &outer); err != nil || outer == nil {
		wrong.add("body", kindInvalid, "is %s: %s", kindOfJSON(body), bodyForm)
		return in
	}
	text, there := outer["data"]
	if !there {
		wrong.add("data", kindRequired, "is missing: %s%s", bodyForm, d.outside(outer, schema))
		return in
	}
	var data map[string]json.RawMessage
	if err := json.Unmarshal(text, &data); err != nil || data == nil {
		wrong.add("data", kindInvalid, "is %s, want an object", kindOfJSON(text))
		return in
	}
	in.whole = true
	_, in.echo = data["state"]
	for name, value := range data {
		property := schema.Properties[name]
		switch {
		case property == nil && slices.Contains(shownOnly, name):
		case property == nil:
			in.warnings = append(in.warnings, unknownField(name, schema))
		case bytes.Equal(value, []byte("null")):
			in.null = append(in.null, name)
		case d.check(name, value, property, wrong):
			in.known[name] = whole(value, property)
		}
	}
	for name := range outer {
		if name != "data" && schema.Properties[name] != nil {
			in.warnings = append(in.warnings, name+" is ignored: move it into data")
		}
	}
	required := schema.Required
	if schema == d.create && string(data["delivery"]) != `"pull"` {
		required = append(slices.Clone(required), "uri")
	}
	for _, name := range required {
		if _, there := data[name]; !there {
			wrong.add(name, kindRequired, "is missing%s", meantFor(name, data, schema))
		}
	}
	slices.Sort(in.warnings)
	return in
}

// outside returns a hint about members that stand beside a missing data.
func (d *document) outside(outer map[string]json.RawMessage, schema *huma.Schema) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(outer)) {
		switch {
		case len(texts) == 8:
			return "; " + strings.Join(texts, "; ") + "; …"
		case schema.Properties[name] != nil:
			texts = append(texts, name+" must be inside data")
		case !slices.Contains(shownOnly, name):
			texts = append(texts, unknownField(name, schema))
		}
	}
	if len(texts) == 0 {
		return ""
	}
	return "; " + strings.Join(texts, "; ")
}

// jsonFault says where a text is not JSON; "" when it is.
func jsonFault(body []byte) string {
	if len(bytes.TrimSpace(body)) == 0 {
		return "is empty: " + bodyForm
	}
	var anything json.RawMessage
	err := json.Unmarshal(body, &anything)
	if fault, ok := errors.AsType[*json.SyntaxError](err); ok {
		at := int(min(fault.Offset, int64(len(body))))
		if strings.Contains(fault.Error(), "unexpected end") {
			return fmt.Sprintf("is not valid JSON: it ends early, at byte %d", len(body))
		}
		line := 1 + bytes.Count(body[:at], []byte("\n"))
		return fmt.Sprintf("is not valid JSON at byte %d (line %d)", at, line)
	}
	if err != nil {
		return "is not valid JSON"
	}
	return ""
}

// kindOfJSON names the kind of a JSON value.
func kindOfJSON(text []byte) string {
	switch text = bytes.TrimSpace(text); text[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	}
	return "a number"
}

// whole writes an integer in the form that Go parses: 3.0 and 30e-1 are the integer 3
// (JSON Schema 2020-12, section 6.1.1). The caller has checked its bounds.
func whole(value json.RawMessage, schema *huma.Schema) json.RawMessage {
	if schema.Type != huma.TypeInteger {
		return value
	}
	if exact, ok := new(big.Rat).SetString(string(value)); ok && exact.IsInt() {
		return json.RawMessage(exact.Num().String())
	}
	return value
}

// notUTF8 names the field of data that contains invalid UTF-8, if it can be found.
func notUTF8(body []byte) string {
	var outer struct{ Data map[string]json.RawMessage }
	if json.Unmarshal(body, &outer) == nil {
		for _, name := range slices.Sorted(maps.Keys(outer.Data)) {
			if !utf8.Valid(outer.Data[name]) {
				return name
			}
		}
	}
	return "body"
}

// readOptional reads a body into to and returns its fields. For a missing body it sets
// nothing. The error lists every fault.
func (d *document) readOptional(body []byte, schema *huma.Schema, to any) (fields, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return fields{known: map[string]json.RawMessage{}, whole: true}, nil
	}
	wrong := faults{}
	sent := d.read(body, schema, wrong)
	if err := wrong.err(); err != nil {
		return fields{}, err
	}
	return sent, sent.into(to)
}

// check validates a value by its schema.
func (d *document) check(name string, value json.RawMessage, schema *huma.Schema, wrong faults) bool {
	var parsed any
	if err := json.Unmarshal(value, &parsed); err != nil {
		wrong.add(name, kindInvalid, "cannot be parsed")
		return false
	}
	result := &huma.ValidateResult{}
	huma.Validate(d.registry, schema, huma.NewPathBuffer([]byte{}, 0), huma.ModeWriteToServer, parsed, result)
	for _, err := range result.Errors {
		field, message := name, err.Error()
		if detail, ok := err.(huma.ErrorDetailer); ok {
			message = detail.ErrorDetail().Message
			switch at := detail.ErrorDetail().Location; {
			case at == "" || at[0] == '[' || at[0] == '.':
				field += at
			default:
				field += "." + at
			}
		}
		wrong.add(field, kindInvalid, "%s", message)
	}
	if text, _ := parsed.(string); len(result.Errors) == 0 && schema.Format == "date-time" && !strictTime.MatchString(text) {
		wrong.add(name, kindInvalid, "want an RFC 3339 time such as 2026-03-09T00:00:00Z")
		return false
	}
	return len(result.Errors) == 0
}

// strictTime is the grammar of RFC 3339, section 5.6, without lower case and leap seconds.
// time.Parse also takes a comma before the fraction and an offset of 24 hours.
var strictTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// huma writes the bounds of numbers with %v, which makes 2.592e+06 of 2592000.
func init() {
	huma.ErrorFormatter = func(format string, a ...any) string {
		for i, value := range a {
			if number, ok := value.(float64); ok {
				a[i] = strconv.FormatFloat(number, 'f', -1, 64)
			}
		}
		return fmt.Sprintf(format, a...)
	}
}

// names returns the names of the known fields that the client sent.
func (f fields) names() []string {
	return append(slices.Collect(maps.Keys(f.known)), f.null...)
}

// into decodes the known fields into a struct. Its error names a value that the schema
// allows and Go cannot parse, such as an impossible time.
func (f fields) into(to any) error {
	wrong := faults{}
	for _, name := range slices.Sorted(maps.Keys(f.known)) {
		text, err := json.Marshal(map[string]json.RawMessage{name: f.known[name]})
		if err != nil || json.Unmarshal(text, to) != nil {
			wrong.add(name, kindInvalid, "has an invalid format: see the example in the OpenAPI document")
		}
	}
	return wrong.err()
}
