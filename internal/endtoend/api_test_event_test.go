package endtoend

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// What a receiver gets of a test is as both documents for tools say, for each kind of
// webhook and in each format. They describe nothing else by it.
func TestSubscriptions_ATestIsAsTheDocumentsSay(t *testing.T) {
	t.Parallel()
	arrivals := make(chan arrival, 20)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		arrivals <- arrival{r.URL.RequestURI(), r.Header, body}
	}))
	t.Cleanup(receiver.Close)
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username) VALUES (7, 'seven'), (8, 'eight'), (9, 'nine')`)
	slot, address := "test_"+db.Name, loopback.Address(t)
	process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--setup", "--listen", address, "--allow-cidr", "127.0.0.0/8", "--admin-token", chaosOperator)
	defer mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
	defer process.stop(t)
	awaitReady(t, address)
	api := apiClient{"http://" + address + "/v2/accounts/", chaosOperator}

	compiler := jsonschema.NewCompiler()
	document := func(name, text string) map[string]any {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err == nil {
			err = compiler.AddResource(name, value)
		}
		if err != nil {
			t.Fatal(err)
		}
		return value.(map[string]any)
	}
	response, err := http.Get("http://" + address + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	open := document("openapi.json", string(text))
	async := document("asyncapi.json", mustRun(t, "schemas", "--outbox", db.URL, "--format", "asyncapi"))
	messages := async["components"].(map[string]any)["messages"].(map[string]any)
	if open["webhooks"].(map[string]any)["webhook.test"] == nil || messages["webhook.test"] == nil {
		t.Fatal("a document describes no test event")
	}
	valid := func(value any, pointer string) {
		t.Helper()
		schema, err := compiler.Compile(pointer)
		if err != nil {
			t.Error(err)
			return
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: %v\n%v", pointer, value, err)
		}
		object := value.(map[string]any)
		for name := range object {
			less := map[string]any{}
			for other, member := range object {
				if other != name {
					less[other] = member
				}
			}
			if name != "subject" && schema.Validate(less) == nil {
				t.Errorf("%s: valid without %s too", pointer, name)
			}
		}
		object["more"] = "1"
		if schema.Validate(object) == nil {
			t.Errorf("%s: valid with another member too", pointer)
		}
		delete(object, "more")
		for _, name := range []string{"schema", "hook_event", "type"} { // what tells a test from another event
			if own, there := object[name]; there {
				object[name] = "dids"
				if schema.Validate(object) == nil {
					t.Errorf("%s: valid with %s dids too", pointer, name)
				}
				object[name] = own
			}
		}
	}
	sent := 0
	media := map[string]string{"envelope": "application/json", "json": "application/json", "form": "application/x-www-form-urlencoded", "cloudevents": "application/cloudevents+json"}
	for hook, own := range map[string]string{"records": "envelope", "channel_create": "json", "InboundCall": "form", "all": "json"} {
		for _, format := range []string{"", "envelope", "json", "form", "cloudevents"} {
			settings := `"name":"n","uri":"` + receiver.URL + `","hook":"` + hook + `"`
			if format != "" {
				settings += `,"format":"` + format + `"`
			}
			account := "7"
			if sent++; sent > 10 { // an account tests ten times in a row, and a host is tested twenty times
				account = "8"
			}
			id := data(t, api.call(t, 201, "PUT", account+"/webhooks", `{"data":{`+settings+`}}`))["id"]
			answer := data(t, api.call(t, 200, "POST", fmt.Sprintf("%s/webhooks/%s/test", account, id), ""))
			if answer["outcome"] != "delivered" {
				t.Fatalf("%s as %s: %v", hook, format, answer)
			}
			got := <-arrivals
			if format == "" {
				format = own
			}
			contentType, _, err := mime.ParseMediaType(got.header.Get("Content-Type"))
			if err != nil || contentType != media[format] {
				t.Errorf("%s as %s: content type %s, %v", hook, format, contentType, err)
			}
			var value any
			if format == "form" {
				fields, err := url.ParseQuery(string(got.body))
				if err != nil {
					t.Fatal(err)
				}
				object := map[string]any{}
				for name := range fields {
					object[name] = fields.Get(name)
				}
				value = object
			} else if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(got.body)); err != nil {
				t.Fatal(err)
			}
			valid(value, "openapi.json#/webhooks/webhook.test/post/requestBody/content/"+url.PathEscape(strings.ReplaceAll(contentType, "/", "~1"))+"/schema")
			message := "webhook.test"
			if format != "envelope" {
				message += "." + format
			}
			valid(value, "asyncapi.json#/components/messages/"+message+"/payload")
			if described := messages[message].(map[string]any)["contentType"]; described != contentType {
				t.Errorf("%s: %v, sent %s", message, described, contentType)
			}
			if inner, isText := value.(map[string]any)["data"].(string); isText { // contentSchema, which a validator need not look at
				record, err := jsonschema.UnmarshalJSON(strings.NewReader(inner))
				if err != nil {
					t.Fatal(err)
				}
				at := "0"
				if hook != "records" {
					at = "1"
				}
				valid(record, "asyncapi.json#/components/messages/webhook.test/payload/anyOf/"+at+"/properties/data/contentSchema")
			}
			for _, h := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
				if got.header.Get(h) == "" {
					t.Errorf("%s as %s: no %s", hook, format, h)
				}
			}
		}
	}

	// A webhook with batches gets a batch of one.
	for format, media := range map[string]string{"envelope": "application/json", "json": "application/json", "cloudevents": "application/cloudevents-batch+json"} {
		another := strings.Replace(receiver.URL, "127.0.0.1", "localhost", 1) // with tests of its own
		id := data(t, api.call(t, 201, "PUT", "9/webhooks", `{"data":{"name":"n","uri":"`+another+`","batch":10,"format":"`+format+`"}}`))["id"]
		if answer := data(t, api.call(t, 200, "POST", fmt.Sprintf("9/webhooks/%s/test", id), "")); answer["outcome"] != "delivered" {
			t.Fatalf("a batch as %s: %v", format, answer)
		}
		got := <-arrivals
		if contentType, _, _ := mime.ParseMediaType(got.header.Get("Content-Type")); contentType != media {
			t.Errorf("a batch as %s: content type %s", format, contentType)
		}
		message := "records.batch"
		if format == "cloudevents" {
			message += ".cloudevents"
		}
		for _, pointer := range []string{
			"openapi.json#/webhooks/records.batch/post/requestBody/content/" + url.PathEscape(strings.ReplaceAll(media, "/", "~1")) + "/schema",
			"asyncapi.json#/components/messages/" + message + "/payload",
		} {
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader(got.body))
			if err != nil {
				t.Fatal(err)
			}
			schema, err := compiler.Compile(pointer)
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(value); err != nil {
				t.Errorf("%s: %v\n%v", pointer, value, err)
			}
			value.([]any)[0].(map[string]any)["more"] = "1"
			if schema.Validate(value) == nil {
				t.Errorf("%s: valid with another member too", pointer)
			}
		}
	}
}
