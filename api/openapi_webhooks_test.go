package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"walhook/schemas/catalog"
)

// The document describes each event of the catalog as a request, and the bodies that walhook
// would send are as it says.
func TestOpenAPI_WebhooksDescribeEveryEvent(t *testing.T) {
	w := newWorld(t)
	text := w.want(t, 200, "", "GET", "/openapi.json", "").text
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("openapi.json", document); err != nil {
		t.Fatal(err)
	}
	types := catalog.Carrier().EventTypes()
	if len(types) < 20 {
		t.Fatalf("the catalog has %d events", len(types))
	}
	webhooks := document.(map[string]any)["webhooks"].(map[string]any)
	if len(webhooks) != len(types)+2 { // and batches, and test events
		t.Errorf("%d webhooks for %d events", len(webhooks), len(types))
	}
	batch := webhooks["records.batch"].(map[string]any)["post"].(map[string]any)
	if about := batch["description"].(string); strings.Contains(about, "query") || !strings.Contains(about, "by PUT") { // batch with get is a 400
		t.Errorf("a batch is described as %q", about)
	}
	for name, w := range webhooks {
		if about := w.(map[string]any)["post"].(map[string]any)["description"].(string); name != "records.batch" && !strings.Contains(about, "with get its fields are in the query") {
			t.Errorf("%s is described as %q", name, about)
		}
	}
	if parameters := fmt.Sprint(batch["parameters"]); !strings.Contains(parameters, "webhook-event-ids") {
		t.Errorf("a batch: headers %s", parameters)
	}
	for media, of := range batch["requestBody"].(map[string]any)["content"].(map[string]any) {
		schema, err := compiler.Compile("openapi.json#/webhooks/records.batch/post/requestBody/content/" + strings.ReplaceAll(media, "/", "~1") + "/schema")
		if err != nil {
			t.Fatal(media, err)
		}
		for _, typ := range types {
			one := typ.Examples[0].Envelope
			if strings.Contains(media, "cloudevents") {
				one = typ.Examples[0].CloudEvents
			}
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader(one))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate([]any{value}); (err == nil) != (typ.Kind != catalog.KindEvent) {
				t.Errorf("a batch of %s as %s: %v", typ.Name, media, err)
			}
		}
		for name, example := range of.(map[string]any)["examples"].(map[string]any) {
			body := example.(map[string]any)["value"].([]any)
			if err := schema.Validate(body); err != nil || len(body) != 2 {
				t.Errorf("a batch as %s, %s: %v\n%v", media, name, body, err)
			}
			if schema.Validate(body[0]) == nil || schema.Validate([]any{map[string]any{}}) == nil {
				t.Errorf("a batch as %s: one event, or an array of something else, is valid too", media)
			}
		}
	}
	for _, typ := range types {
		post, there := webhooks[typ.Name].(map[string]any)["post"].(map[string]any)
		if !there {
			t.Errorf("no webhook %s", typ.Name)
			continue
		}
		if parameters := post["parameters"].([]any); len(parameters) != len(catalog.DeliveryHeaders()) {
			t.Errorf("%s: headers %v", typ.Name, parameters)
		}
		for _, media := range []string{"application/json", "application/cloudevents+json", "application/x-www-form-urlencoded"} {
			schema, err := compiler.Compile("openapi.json#/webhooks/" + typ.Name + "/post/requestBody/content/" + strings.ReplaceAll(media, "/", "~1") + "/schema")
			if err != nil {
				t.Errorf("%s: %v", typ.Name, err)
				continue
			}
			for _, form := range typ.DeliveryForms() {
				for _, body := range form.Examples {
					if form.MediaType != media {
						continue
					}
					var value any
					if form.Format == "form" {
						fields, err := url.ParseQuery(string(body))
						if err != nil {
							t.Fatal(err)
						}
						object := map[string]any{}
						for name := range fields {
							object[name] = fields.Get(name)
						}
						value = object
					} else if err := json.Unmarshal(body, &value); err != nil {
						t.Fatal(err)
					}
					if err := schema.Validate(value); err != nil {
						t.Errorf("%s as %s: %s\n%v", typ.Name, form.Format, body, err)
					}
				}
			}
			if schema.Validate("text") == nil {
				t.Errorf("%s as %s: text is valid too", typ.Name, media)
			}
		}
	}
}

// A schema may have the name of a test event, and one of a stored catalog its key.
func TestOpenAPI_ATestIsDescribedBesideASchemaOfItsName(t *testing.T) {
	t.Parallel()
	stored, err := catalog.ParseStored([]byte(`
account: {table: users, id: id, url: url}
schemas:
  test: {table: a, owner: user_id, fields: [id]}
  webhook.test: {table: b, owner: user_id, fields: [id]}
`))
	if err != nil {
		t.Fatal(err)
	}
	types := stored.EventTypes()
	webhooks := webhooksSection(types)
	messages := stored.AsyncAPI("test")["components"].(map[string]any)["messages"].(map[string]any)
	for key, of := range map[string]string{"test": "test", "webhook.test": "webhook.test", "webhook.test_": "Test event"} {
		if post, _ := webhooks[key].(map[string]any); post == nil || !strings.HasSuffix(post["post"].(map[string]any)["summary"].(string), of) {
			t.Errorf("openapi.json: %s is %v, want %s", key, post, of)
		}
	}
	for _, key := range []string{"test", "webhook.test", "webhook.test_"} {
		message, _ := messages[key].(map[string]any)
		if about, _ := message["summary"].(string); (about == catalog.TestAbout) != (key == "webhook.test_") || about == "" {
			t.Errorf("AsyncAPI: %s is %v", key, message)
		}
	}
	if len(messages) != 4*len(types)+2+4 || len(webhooks) != len(types)+2 { // batches and test events besides
		t.Errorf("%d messages and %d webhooks of %d events", len(messages), len(webhooks), len(types))
	}
}
