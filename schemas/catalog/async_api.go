package catalog

import "strings"

// AsyncAPIVersion is the version of the specification that [Catalog.AsyncAPI] follows.
const AsyncAPIVersion = "3.0.0"

// asyncAPI is an AsyncAPI document, or a part of one.
type asyncAPI = map[string]any

// AsyncAPI returns the catalog as an AsyncAPI document: one channel, which is the URL of a
// webhook, a message for each event in each format, test events included, and one for batches of each type.
// version is that of the program.
func (c *Catalog) AsyncAPI(version string) map[string]any {
	types := c.EventTypes()
	all, own, references := asyncAPI{}, asyncAPI{}, []any{}
	payloads := map[string][]map[string]any{} // references to schemas by event and format
	add := func(name string, message asyncAPI) {
		all[name] = message
		own[name] = asyncAPI{"$ref": "#/components/messages/" + name}
		references = append(references, asyncAPI{"$ref": "#/channels/webhook/messages/" + name})
	}
	for i := range types {
		for at, form := range types[i].DeliveryForms() {
			name := messageName(types[i].Name)
			if at > 0 {
				name += "." + form.Format
			}
			for all[name] != nil { // two names that differ in other characters
				name += "_"
			}
			add(name, messageOf(types[i].Name, types[i].About, &form))
			of := types[i].Name + " " + form.Format
			payloads[of] = append(payloads[of], jsonSchema{"$ref": "#/components/messages/" + name + "/payload"})
		}
	}
	for at, form := range BatchForms(types, func(t *EventType, format string) []map[string]any { return payloads[t.Name+" "+format] }) {
		name := BatchName
		if at > 0 {
			name += "." + form.Format
		}
		add(name, asyncAPI{
			"name": BatchName, "title": "Events of the record feed (" + form.Format + ")", "contentType": form.MediaType, "payload": form.Schema,
			"summary": "Several events in one request, for a webhook that sets batch.",
			"headers": asyncAPI{"$ref": "#/components/schemas/batchHeaders"},
		})
	}
	for at, form := range TestForms() {
		name := TestKey
		if at > 0 {
			name += "." + form.Format
		}
		for all[name] != nil { // of a stored catalog
			name += "_"
		}
		add(name, messageOf(TestKey, TestAbout, &form))
	}
	return asyncAPI{
		"asyncapi":           AsyncAPIVersion,
		"info":               asyncAPI{"title": "Events of walhook", "version": version, "description": "What walhook sends to the URL of a webhook. A message without a format in its name is in the event's own format; the others are for webhooks that set one. A webhook with custom_data gets its members in each body besides."},
		"defaultContentType": mediaJSON,
		"channels": asyncAPI{"webhook": asyncAPI{
			"address":     nil,
			"title":       "The URL of a webhook",
			"description": "Each webhook names a URL of its own, and which events it wants.",
			"messages":    own,
		}},
		"operations": asyncAPI{"deliver": asyncAPI{
			"action":      "send",
			"title":       "Deliver an event",
			"description": "One request for each event, or for each batch where the webhook sets batch, until a 2xx answers it. Events of one record come in the order of their commits. A webhook with http_verb put gets the same by PUT; with get the fields are in the query, and there is no body.",
			"channel":     asyncAPI{"$ref": "#/channels/webhook"},
			"messages":    references,
			"bindings":    asyncAPI{"http": asyncAPI{"method": "POST", "bindingVersion": "0.3.0"}},
		}},
		"components": asyncAPI{"messages": all, "schemas": asyncAPI{"headers": headersSchema(DeliveryHeaders()), "batchHeaders": headersSchema(BatchHeaders())}},
	}
}

// messageName returns a name that is a key of components (AsyncAPI 3.0.0, "Components
// Object"): letters, digits, dot, hyphen and underscore.
func messageName(event string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-", r):
			return r
		}
		return '_'
	}, event)
}

func messageOf(name, about string, form *DeliveryForm) asyncAPI {
	one := asyncAPI{
		"name":        name,
		"title":       name + " (" + form.Format + ")",
		"contentType": form.MediaType,
		"headers":     asyncAPI{"$ref": "#/components/schemas/headers"},
		"payload":     form.Schema,
	}
	if about != "" {
		one["summary"] = about
	}
	return one
}

func headersSchema(of []DeliveryHeader) jsonSchema {
	headers, required := jsonSchema{}, []string{}
	for _, h := range of {
		headers[h.Name] = jsonSchema{"type": "string", "description": h.About, "examples": []string{h.Example}}
		required = append(required, h.Name)
	}
	return jsonSchema{"type": "object", "properties": headers, "required": required}
}
