package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

const webhooksFile = "../../docs/WEBHOOKS.md"

func TestSchemas_ThePageIsGeneratedFromTheCode(t *testing.T) {
	want := schemasMarkdown(catalog.Carrier())
	if *update {
		if err := os.WriteFile(webhooksFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(webhooksFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/WEBHOOKS.md is older than the catalog: run 'make docs'")
	}
}

// Every event that the catalog can render is valid by the schema that is
// printed for it, and is no longer when something is wrong with it.
func TestSchemas_BodiesAreAsTheirSchemaSays(t *testing.T) {
	t.Parallel()
	parsed := catalog.Carrier()
	compiled := compileSchemas(t, parsed)
	validate := func(name string, body []byte) error {
		t.Helper()
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			t.Fatalf("%s: %s: %v", name, body, err)
		}
		return compiled[name].Validate(value)
	}
	for _, hook := range parsed.Hooks() {
		for _, payload := range payloadsOf(hook) {
			event, err := parsed.HookEvent(catalog.Emitted{Account: "7", Hook: hook.Name, Payload: payload})
			if err != nil {
				t.Errorf("%s: %v", hook.Name, err)
				continue
			}
			body := event.Body(time.Unix(1_700_000_000, 0))
			if err := validate(hook.Name, body); err != nil {
				t.Errorf("%s: %s\n%v", hook.Name, body, err)
			}
			if wrong := bytes.Replace(body, []byte(hook.Name), []byte("other"), 1); validate(hook.Name, wrong) == nil {
				t.Errorf("%s: %s is valid too", hook.Name, wrong)
			}
		}
	}
	envelope := []byte(`{"type":"update","schema":"dids","data":"{\"id\":42}"}`)
	if err := validate("dids", envelope); err != nil {
		t.Error(err)
	}
	if validate("users", envelope) == nil || validate("dids", []byte(`{"type":"upsert","schema":"dids","data":"{}"}`)) == nil {
		t.Error("an envelope of another schema or type is valid")
	}
	for _, typ := range parsed.EventTypes() {
		for _, x := range typ.Examples {
			body := x.JSON
			if typ.Kind == catalog.KindRecord {
				body = x.Envelope
			}
			if err := validate(typ.Name, body); err != nil {
				t.Errorf("example of %s: %s\n%v", typ.Name, body, err)
			}
		}
	}
	if err := validate("result", []byte(`{"type":"update","schema":"sms_enablement","status":"error","verbose":""}`)); err != nil {
		t.Error(err)
	}
}

func compileSchemas(t *testing.T, catalog *catalog.Catalog) map[string]*jsonschema.Schema {
	t.Helper()
	var out bytes.Buffer
	if err := printSchemas(&out, catalog, "json-schema", ""); err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(&out)
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("walhook.json", document); err != nil {
		t.Fatal(err)
	}
	compiled := map[string]*jsonschema.Schema{}
	for name := range catalog.JSONSchemas() {
		if compiled[name], err = compiler.Compile("walhook.json#/$defs/" + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	names := map[string]bool{"result": true}
	for _, d := range catalog.Describe() {
		if names[d.Name] {
			t.Errorf("two events are called %s", d.Name)
		}
		names[d.Name] = true
	}
	if len(compiled) != len(names) {
		t.Errorf("%d schemas for %d events", len(compiled), len(names))
	}
	return compiled
}

// payloadsOf has a value for each field that a hook takes from a payload, once
// for each of its forms.
func payloadsOf(hook *catalog.Hook) [][]schemas.Member {
	full := func(fields []catalog.HookField) []schemas.Member {
		var payload []schemas.Member
		for _, f := range fields {
			if f.Source == catalog.FromPayload {
				payload = append(payload, schemas.StringMember(f.Key, []byte("x")))
			}
		}
		return payload
	}
	if hook.Variants == nil {
		return [][]schemas.Member{full(hook.Fields)}
	}
	var all [][]schemas.Member
	for _, v := range hook.Variants.Of {
		all = append(all, append(full(v.Fields), schemas.StringMember(hook.Variants.Key, []byte(v.Value))))
	}
	return all
}

// What is printed as YAML is a catalog that says the same.
func TestSchemas_TheYAMLIsACatalogThatSaysTheSame(t *testing.T) {
	t.Parallel()
	const own = "account: {table: a, id: id, url: url}\nschemas:\n  things: {table: things, owner: a, fields: [id]}\n"
	mine, err := catalog.Parse([]byte(own))
	if err != nil {
		t.Fatal(err)
	}
	for name, parsed := range map[string]*catalog.Catalog{"carrier": catalog.Carrier(), "platform": catalog.Platform(), "own": mine} {
		again, err := catalog.Parse(parsed.YAML())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(again.YAML()) != string(parsed.YAML()) {
			t.Errorf("%s: printed twice it is another", name)
		}
		before, _ := json.Marshal([]any{parsed.Schemas, parsed.Account, parsed.Results, parsed.Events, parsed.Describe()})
		after, _ := json.Marshal([]any{again.Schemas, again.Account, again.Results, again.Events, again.Describe()})
		if !bytes.Equal(before, after) || parsed.Fingerprint() != again.Fingerprint() {
			t.Errorf("%s: it says something else", name)
		}
	}
}

func TestSchemas_SaysWhichEventsThereAre(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--format", "xml"}, {"--format", "json-schema", "nothing"}, {"dids"}} {
		var out bytes.Buffer
		root := newRootCommand()
		root.SetArgs(append([]string{"schemas"}, args...))
		root.SetOut(&out)
		err := root.ExecuteContext(t.Context())
		if _, ok := errors.AsType[usageError](err); !ok || !strings.Contains(err.Error(), "json-schema") && !strings.Contains(err.Error(), "channel_create") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
