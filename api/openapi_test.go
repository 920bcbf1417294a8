package api

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"go.yaml.in/yaml/v3"
)

func TestOpenAPI_IsAValidDocumentOfVersion31(t *testing.T) {
	w := newWorld(t)
	asJSON := w.want(t, 200, "", "GET", "/openapi.json", "")
	for path, text := range map[string]string{"/openapi.json": asJSON.text, "/openapi.yaml": w.want(t, 200, "", "GET", "/openapi.yaml", "").text} {
		for _, fault := range faultsOf(t, text) {
			t.Errorf("%s: %s", path, fault)
		}
	}
	if faults := faultsOf(t, `{"openapi":"3.1.0","info":{"title":"x"},"paths":{}}`); len(faults) == 0 {
		t.Error("a document without a version is taken for valid")
	}
	var a, b any
	if err := json.Unmarshal([]byte(asJSON.text), &a); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(w.want(t, 200, "", "GET", "/openapi.yaml", "").text), &b); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(b)
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("the two forms differ: %v", err)
	}
	if version := a.(map[string]any)["openapi"]; version != "3.1.0" {
		t.Errorf("version %v", version)
	}
}

func faultsOf(t *testing.T, text string) (faults []string) {
	t.Helper()
	document, err := libopenapi.NewDocument([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(document)
	for _, err := range errs {
		faults = append(faults, err.Error())
	}
	if len(errs) > 0 {
		return faults
	}
	valid, problems := v.ValidateDocument()
	for _, p := range problems {
		faults = append(faults, p.Message+": "+p.Reason)
		for _, s := range p.SchemaValidationErrors {
			faults = append(faults, s.Location+": "+s.Reason)
		}
	}
	if !valid && len(faults) == 0 {
		faults = append(faults, "not valid")
	}
	return faults
}

// TestContract_ListsTheCallsOfTheAPI compares docs/CONTRACT.md with the OpenAPI
// document, calls and fields of a webhook both.
func TestContract_ListsTheCallsOfTheAPI(t *testing.T) {
	page, err := os.ReadFile("../docs/CONTRACT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## 7. The subscription API\n")
	if !found {
		t.Fatal("docs/CONTRACT.md has no section about the API")
	}
	var document struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal([]byte(newWorld(t).want(t, 200, "", "GET", "/openapi.json", "").text), &document); err != nil {
		t.Fatal(err)
	}
	parameter := regexp.MustCompile(`\{[a-z_]+\}`)
	served := map[string]bool{}
	for path, methods := range document.Paths {
		_, own, ofOne := strings.Cut(path, "/accounts/{account_id}")
		if !ofOne {
			own = strings.TrimPrefix(strings.TrimPrefix(path, "/v2"), "/api/v1")
		}
		path = own
		for method := range methods {
			served[strings.ToUpper(method)+" "+parameter.ReplaceAllString(path, "{}")] = true
		}
	}
	listed := map[string]bool{}
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		calls, _, _ := strings.Cut(line[2:], " | ")
		_, path, _ := strings.Cut(calls, "/") // of `GET`, `POST /webhooks/{id}`: that of all
		path, _, _ = strings.Cut(path, "`")
		for _, call := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(calls, -1) {
			method, own, _ := strings.Cut(call[1], " /")
			if own == "" {
				own = path
			}
			listed[method+" /"+parameter.ReplaceAllString(own, "{}")] = true
		}
	}
	for call := range served {
		if !listed[call] {
			t.Errorf("docs/CONTRACT.md lacks %s", call)
		}
	}
	for call := range listed {
		if !served[call] {
			t.Errorf("docs/CONTRACT.md lists %s, which is not served", call)
		}
	}

	settable, readOnly, _ := strings.Cut(section, "\nThese are read only:")
	_, settable, _ = strings.Cut(settable, "\nA client may set these fields")
	readOnly, _, _ = strings.Cut(readOnly, "\n")
	for field := range reflect.TypeFor[webhookFields]().Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); !strings.Contains(settable, "`"+name+"`") {
			t.Errorf("docs/CONTRACT.md does not list %s as a field that may be set", name)
		}
	}
	for field := range reflect.TypeFor[webhook]().Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); !strings.Contains(settable+readOnly, "`"+name+"`") {
			t.Errorf("docs/CONTRACT.md does not list the field %s", name)
		}
	}
}
