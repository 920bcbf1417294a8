package catalog

import (
	"encoding/json"
)

// JSONSchemaDialect names the version of the schemas of [Catalog.JSONSchemas].
const JSONSchemaDialect = "https://json-schema.org/draft/2020-12/schema"

// jsonSchema is a JSON Schema, or a part of one.
type jsonSchema = map[string]any

// resultName is the name under which async results are described.
const resultName = "result"

// JSONSchemas returns the schemas of the bodies of all events, by the event's name. A
// form body has the schema of an object with its fields. The caller may change them.
func (c *Catalog) JSONSchemas() map[string]map[string]any {
	all := map[string]map[string]any{resultName: asyncResultSchema()}
	for _, d := range c.Describe() {
		all[d.Name] = d.jsonSchema()
	}
	return all
}

func (d *Description) jsonSchema() jsonSchema {
	if d.Record {
		return recordSchema(d)
	}
	if d.Format == "form" {
		return textFields(eventSchema(d))
	}
	return eventSchema(d)
}

func recordSchema(d *Description) jsonSchema {
	data := formSchema(&d.Forms[0], false)
	return jsonSchema{
		"title": "A change of a record: " + d.Name,
		"type":  "object",
		"properties": jsonSchema{
			"type":   jsonSchema{"enum": []string{"insert", "update", "delete"}},
			"schema": jsonSchema{"const": d.Name},
			"data":   jsonSchema{"type": "string", "contentMediaType": "application/json", "contentSchema": data},
		},
		"required":             []string{"type", "schema", "data"},
		"additionalProperties": false,
	}
}

func asyncResultSchema() jsonSchema {
	text := jsonSchema{"type": "string"}
	return jsonSchema{
		"title":       "The result of work that finished later",
		"description": "schema is the kind of work, such as sms_enablement. Notices (webhook.disabled) name the account they are about.",
		"type":        "object",
		"properties":  jsonSchema{"type": text, "schema": text, "status": text, "verbose": text, "account": text},
		"required":    []string{"type", "schema", "status", "verbose"},
	}
}

func eventSchema(d *Description) jsonSchema {
	var one jsonSchema
	if len(d.Forms) == 1 {
		one = formSchema(&d.Forms[0], d.Extra)
	} else {
		var forms []jsonSchema
		for i := range d.Forms {
			forms = append(forms, formSchema(&d.Forms[i], d.Extra))
		}
		one = jsonSchema{"anyOf": forms}
	}
	one["title"] = d.Name
	if d.About != "" {
		one["description"] = d.About
	}
	return one
}

func formSchema(form *Form, extra bool) jsonSchema {
	properties := jsonSchema{}
	required := []string{}
	for i := range form.Fields {
		f := &form.Fields[i]
		properties[f.Name] = fieldSchema(f)
		if !f.Optional {
			required = append(required, f.Name)
		}
	}
	return jsonSchema{"type": "object", "properties": properties, "required": required, "additionalProperties": extra}
}

func fieldSchema(f *FieldDescription) jsonSchema {
	one := jsonSchema{}
	if f.About != "" {
		one["description"] = f.About
	}
	if f.Type != "" {
		one["type"] = f.Type
	}
	if f.Type == "array" {
		one["items"] = jsonSchema{"type": "string"}
	}
	var values []json.RawMessage
	for _, v := range f.Values {
		values = append(values, v.AppendJSON(nil))
	}
	switch len(values) {
	case 0:
	case 1:
		one["const"] = values[0]
	default:
		one["enum"] = values
	}
	return one
}
