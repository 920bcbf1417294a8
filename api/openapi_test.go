package api

import (
	"encoding/json"
	"reflect"
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
