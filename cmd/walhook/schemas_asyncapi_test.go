package main

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"walhook/schemas/catalog"
)

// asyncAPIEnv names the file of AsyncAPI's own JSON Schema, which .ci/asyncapi fetches.
const asyncAPIEnv = "TEST_ASYNCAPI"

func asyncAPIOf(t *testing.T, of *catalog.Catalog) (document any) {
	t.Helper()
	var out bytes.Buffer
	if err := printSchemas(&out, of, "asyncapi", ""); err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(&out)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

func TestSchemas_TheAsyncAPIDocumentIsValid(t *testing.T) {
	t.Parallel()
	file := os.Getenv(asyncAPIEnv)
	if file == "" {
		t.Skipf("NOT PROVEN: %s does not name AsyncAPI's JSON Schema; .ci/asyncapi fetches it", asyncAPIEnv)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	official, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	const name = "http://asyncapi.com/definitions/3.0.0/asyncapi.json"
	if err := compiler.AddResource(name, official); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	for name, of := range map[string]*catalog.Catalog{"carrier": catalog.Carrier(), "platform": catalog.Platform()} {
		document := asyncAPIOf(t, of)
		if err := schema.Validate(document); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		document.(map[string]any)["channels"].(map[string]any)["webhook"].(map[string]any)["messages"] = []any{}
		if schema.Validate(document) == nil {
			t.Errorf("%s: a document with a list of messages is valid too", name)
		}
	}
}

// Each example of an event is valid by the message of its format, and every reference
// leads to a message.
func TestSchemas_MessagesOfAsyncAPIDescribeTheBodies(t *testing.T) {
	t.Parallel()
	parsed := catalog.Carrier()
	document := asyncAPIOf(t, parsed)
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("asyncapi.json", document); err != nil {
		t.Fatal(err)
	}
	messages := document.(map[string]any)["components"].(map[string]any)["messages"].(map[string]any)
	seen := 0
	for _, typ := range parsed.EventTypes() {
		for at, form := range typ.DeliveryForms() {
			name := typ.Name
			if at > 0 {
				name += "." + form.Format
			}
			message, there := messages[name].(map[string]any)
			if !there {
				t.Errorf("no message %s", name)
				continue
			}
			seen++
			if message["contentType"] != form.MediaType {
				t.Errorf("%s: content type %v, want %s", name, message["contentType"], form.MediaType)
			}
			schema, err := compiler.Compile("asyncapi.json#/components/messages/" + strings.ReplaceAll(name, "~", "~0") + "/payload")
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for _, body := range form.Examples {
				value, err := valueOf(form.Format, body)
				if err == nil {
					err = schema.Validate(value)
				}
				if err != nil {
					t.Errorf("%s: %s\n%v", name, body, err)
				}
				if object, ok := value.(map[string]any); ok && typ.Kind != catalog.KindResult && !typ.Extra {
					object["more"] = json.Number("1")
					if schema.Validate(object) == nil {
						t.Errorf("%s: a body with another member is valid too", name)
					}
				}
			}
		}
	}
	for at, form := range catalog.TestForms() {
		name := "webhook.test"
		if at > 0 {
			name += "." + form.Format
		}
		schema, err := compiler.Compile("asyncapi.json#/components/messages/" + name + "/payload")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		seen++
		for _, body := range form.Examples {
			value, err := valueOf(form.Format, body)
			if err == nil {
				err = schema.Validate(value)
			}
			if err != nil {
				t.Errorf("%s: %s\n%v", name, body, err)
			}
		}
	}
	for _, name := range []string{"records.batch", "records.batch.cloudevents"} {
		schema, err := compiler.Compile("asyncapi.json#/components/messages/" + name + "/payload")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		seen++
		one := parsed.EventTypes()[0].Examples[0]
		body := one.Envelope
		if strings.HasSuffix(name, ".cloudevents") {
			body = one.CloudEvents
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err == nil {
			err = schema.Validate([]any{value, value})
		}
		if err != nil {
			t.Errorf("%s: %s\n%v", name, body, err)
		}
		if schema.Validate(value) == nil {
			t.Errorf("%s: one event without an array is valid too", name)
		}
	}
	if seen != len(messages) {
		t.Errorf("%d messages, and %d that no event has", len(messages), len(messages)-seen)
	}
	for _, reference := range document.(map[string]any)["operations"].(map[string]any)["deliver"].(map[string]any)["messages"].([]any) {
		name := strings.TrimPrefix(reference.(map[string]any)["$ref"].(string), "#/channels/webhook/messages/")
		if messages[name] == nil {
			t.Errorf("the operation refers to %s, which is no message", name)
		}
	}
}

// valueOf is what the schema of a format describes: of a form, an object with its fields.
func valueOf(format string, body []byte) (any, error) {
	if format != "form" {
		return jsonschema.UnmarshalJSON(bytes.NewReader(body))
	}
	fields, err := url.ParseQuery(string(body))
	object := map[string]any{}
	for name := range fields {
		object[name] = fields.Get(name)
	}
	return object, err
}
