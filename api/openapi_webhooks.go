package api

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"walhook/schemas/catalog"
)

// openAPI is a part of an OpenAPI document that huma has no type for.
type openAPI = map[string]any

// webhooksSection describes the requests that walhook makes: one for each event, by its
// name (OpenAPI 3.1.0, section 4.8.1), one for batches, and one for test events. A request with a media type has the body of the
// event's own format, or of a format that the webhook sets.
func webhooksSection(types []catalog.EventType) map[string]any {
	all, headers := openAPI{}, []any{}
	for _, h := range catalog.DeliveryHeaders() {
		headers = append(headers, openAPI{"$ref": "#/components/parameters/" + h.Name})
	}
	for i := range types {
		t := &types[i]
		all[t.Name] = delivery(t.Name, "Event "+t.Name, t.About+byVerb, headers, contentOf(t.DeliveryForms(), formNames(t)))
	}
	all[catalog.BatchName] = delivery(catalog.BatchName, "Several events of the record feed", "For a webhook that sets batch. One with http_verb put gets it by PUT.", batchParameters(), batchContent(types))
	test := catalog.TestKey
	for all[test] != nil { // of a stored catalog
		test += "_"
	}
	all[test] = delivery(test, "Test event", catalog.TestAbout+byVerb, headers, contentOf(catalog.TestForms(), []string{"records", "hook"}))
	return all
}

// byVerb says how a single event comes by the other verbs. A batch has none by GET.
const byVerb = " A webhook with http_verb put gets it by PUT; with get its fields are in the query, and there is no body."

// delivery describes a request that walhook makes.
func delivery(name, summary, description string, headers []any, content openAPI) openAPI {
	return openAPI{
		"post": openAPI{
			"operationId": "deliver-" + name,
			"summary":     summary,
			"description": strings.TrimSpace(description),
			"parameters":  headers,
			"requestBody": openAPI{"required": true, "content": content},
			"security":    []any{},
			"responses": openAPI{
				"2XX":     openAPI{"description": "the receiver has the event"},
				"410":     openAPI{"description": http.StatusText(http.StatusGone) + ": walhook disables the webhook"},
				"429":     openAPI{"description": http.StatusText(http.StatusTooManyRequests) + ": walhook pauses the webhook, for as long as Retry-After asks"},
				"503":     openAPI{"description": http.StatusText(http.StatusServiceUnavailable) + ": as 429"},
				"default": openAPI{"description": "a failure, redirects included: walhook tries again later"},
			},
		},
	}
}

// batchParameters describes the headers of a batch.
func batchParameters() (parameters []any) {
	for _, h := range catalog.BatchHeaders() {
		parameters = append(parameters, openAPI{
			"name": h.Name, "in": "header", "required": true, "description": h.About, "schema": openAPI{"type": huma.TypeString}, "example": h.Example,
		})
	}
	return parameters
}

// batchContent describes the bodies of batches by the schemas of the single events. envelope
// and json share one. A reference to that of a CloudEvent would hold a plus sign, which tools
// do not resolve.
func batchContent(types []catalog.EventType) openAPI {
	escaped := strings.NewReplacer("~", "~0", "/", "~1") // RFC 6901
	schemaOf := func(t *catalog.EventType, format string) (list []map[string]any) {
		for _, form := range t.DeliveryForms() {
			switch {
			case form.Format != format:
			case format == "envelope":
				list = append(list, openAPI{"$ref": "#/webhooks/" + url.PathEscape(escaped.Replace(t.Name)) + "/post/requestBody/content/" + escaped.Replace(form.MediaType) + "/schema"})
			case format == "cloudevents":
				list = append(list, form.Schema)
			}
		}
		return list
	}
	content := openAPI{}
	for _, form := range catalog.BatchForms(types, schemaOf) {
		content[form.MediaType] = openAPI{"schema": form.Schema, "examples": openAPI{form.Format: openAPI{"value": exampleValue(form.Example)}}}
	}
	return content
}

// headerParameters describes the headers of the requests that walhook makes.
func headerParameters() map[string]*huma.Param {
	all := map[string]*huma.Param{}
	for _, h := range catalog.DeliveryHeaders() {
		all[h.Name] = &huma.Param{
			Name: h.Name, In: "header", Required: true, Description: h.About, Schema: &huma.Schema{Type: huma.TypeString}, Example: h.Example,
		}
	}
	return all
}

// formNames names the forms of an event; "" is the only one.
func formNames(t *catalog.EventType) (names []string) {
	for i := range t.Forms {
		names = append(names, t.Forms[i].If)
	}
	return names
}

// contentOf describes the bodies of an event by their media type. envelope and json
// share one. names are those of the examples in each format.
func contentOf(forms []catalog.DeliveryForm, names []string) openAPI {
	content := openAPI{}
	for _, form := range forms {
		examples := openAPI{}
		for i, body := range form.Examples {
			name := form.Format
			if names[i] != "" {
				name += " " + names[i]
			}
			examples[name] = openAPI{"value": exampleValue(body)}
		}
		of, there := content[form.MediaType].(openAPI)
		if !there {
			content[form.MediaType] = openAPI{"schema": form.Schema, "examples": examples}
			continue
		}
		of["schema"] = openAPI{"anyOf": []any{of["schema"], form.Schema}}
		maps.Copy(of["examples"].(openAPI), examples)
	}
	return content
}

// exampleValue is JSON, or the text of a form.
func exampleValue(body []byte) any {
	if !json.Valid(body) {
		return string(body)
	}
	return json.RawMessage(body)
}
