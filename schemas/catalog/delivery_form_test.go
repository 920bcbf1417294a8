package catalog

import (
	"bytes"
	"encoding/json"
	"testing"
)

// Every field of a form is text, whatever its value is in JSON.
func TestDeliveryForms_AFormHasTexts(t *testing.T) {
	t.Parallel()
	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	event := EventType{Schema: jsonSchema{"anyOf": []jsonSchema{{"properties": jsonSchema{
		"number": jsonSchema{"type": "integer", "description": "how many"},
		"any":    jsonSchema{},
		"one":    jsonSchema{"type": "integer", "const": raw("5")},
		"none":   jsonSchema{"const": raw("null")},
		"some":   jsonSchema{"enum": []json.RawMessage{raw("true"), raw(`"a\"b"`)}},
		"list":   jsonSchema{"type": "array", "items": jsonSchema{"type": "string"}},
	}}}}}
	before, _ := json.Marshal(event.Schema)
	const want = `{"anyOf":[{"properties":{"any":{"type":"string"},` +
		`"list":{"contentMediaType":"application/json","contentSchema":{"items":{"type":"string"},"type":"array"},"type":"string"},` +
		`"none":{"const":"","type":"string"},"number":{"description":"how many","type":"string"},"one":{"const":"5","type":"string"},` +
		`"some":{"enum":["true","a\"b"],"type":"string"}}}]}`
	if got, err := json.Marshal(event.formSchema()); string(got) != want || err != nil {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	if after, _ := json.Marshal(event.Schema); string(after) != string(before) {
		t.Errorf("the event's own schema is %s now, was %s", after, before)
	}
	d := Description{Name: "e", Format: "form", Forms: []Form{{Fields: []FieldDescription{{Name: "n", Type: "string", Values: []literal{{literalNumber, "5"}}}}}}}
	if got := d.jsonSchema()["properties"].(jsonSchema)["n"].(jsonSchema)["const"]; got != "5" {
		t.Errorf("an event in the format form: const %#v", got)
	}
}

// An example of a test has an id of a test.
func TestForms_OfATestHaveTestIDs(t *testing.T) {
	for _, form := range TestForms() {
		for _, body := range form.Examples {
			if form.Format == "cloudevents" && !bytes.Contains(body, []byte(`"id":"test_`)) {
				t.Errorf("%s", body)
			}
		}
	}
}
