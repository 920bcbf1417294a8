package catalog

import "strings"

// AsyncAPIVersion is the version of the specification that [Catalog.AsyncAPI] follows.
const AsyncAPIVersion = "3.0.0"

// asyncAPI is an AsyncAPI document, or a part of one.
type asyncAPI = map[string]any

// AsyncAPI returns the catalog as an AsyncAPI document: one channel, which is the URL of a
// webhook, and a message for each event in each format. version is that of the program.
func (c *Catalog) AsyncAPI(version string) map[string]any {
	types := c.EventTypes()
	all, own, references := asyncAPI{}, asyncAPI{}, []any{}
	for i := range types {
		for at, form := range types[i].DeliveryForms() {
			name := messageName(types[i].Name)
			if at > 0 {
				name += "." + form.Format
			}
			for all[name] != nil { // two names that differ in other characters
				name += "_"
			}
			all[name] = messageOf(&types[i], &form)
			own[name] = asyncAPI{"$ref": "#/components/messages/" + name}
			references = append(references, asyncAPI{"$ref": "#/channels/webhook/messages/" + name})
		}
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
			"description": "One request for each event, until a 2xx answers it. Events of one record come in the order of their commits.",
			"channel":     asyncAPI{"$ref": "#/channels/webhook"},
			"messages":    references,
			"bindings":    asyncAPI{"http": asyncAPI{"method": "POST", "bindingVersion": "0.3.0"}},
		}},
		"components": asyncAPI{"messages": all, "schemas": asyncAPI{"headers": headersSchema()}},
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

func messageOf(t *EventType, form *DeliveryForm) asyncAPI {
	one := asyncAPI{
		"name":        t.Name,
		"title":       t.Name + " (" + form.Format + ")",
		"contentType": form.MediaType,
		"headers":     asyncAPI{"$ref": "#/components/schemas/headers"},
		"payload":     form.Schema,
	}
	if t.About != "" {
		one["summary"] = t.About
	}
	return one
}

func headersSchema() jsonSchema {
	headers, required := jsonSchema{}, []string{}
	for _, h := range DeliveryHeaders() {
		headers[h.Name] = jsonSchema{"type": "string", "description": h.About, "examples": []string{h.Example}}
		required = append(required, h.Name)
	}
	return jsonSchema{"type": "object", "properties": headers, "required": required}
}
