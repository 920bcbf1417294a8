package api

import (
	"bytes"
	"encoding/json"
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
	if len(webhooks) != len(types) {
		t.Errorf("%d webhooks for %d events", len(webhooks), len(types))
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
		for _, media := range []string{"application/json", "application/cloudevents+json"} {
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
					if err := json.Unmarshal(body, &value); err != nil {
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
