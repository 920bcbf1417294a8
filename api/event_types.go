package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"walhook/schemas/catalog"
)

// eventType is an event of the catalog.
type eventType struct {
	Name          string          `json:"name" doc:"of the schema or the hook"`
	Kind          string          `json:"kind" enum:"record,result,event" doc:"record and result are of the record feed (hook records); event is what a webhook subscribes to by its name"`
	Description   string          `json:"description"`
	Groups        []string        `json:"groups" nullable:"false" doc:"other hooks that include it"`
	DefaultFormat string          `json:"default_format" enum:"envelope,json,form" doc:"the format of its bodies unless the webhook sets one"`
	Targets       []string        `json:"targets" nullable:"false" doc:"the kinds of object that a webhook for it can be bound to"`
	Daily         bool            `json:"daily" doc:"a webhook with delivery daily gets its counts of a day"`
	Extra         bool            `json:"extra" doc:"bodies may have members besides the fields"`
	Forms         []eventTypeForm `json:"forms" nullable:"false" doc:"what a body holds: one form, or several that one of its fields tells apart"`
	JSONSchema    map[string]any  `json:"json_schema" doc:"the JSON Schema (2020-12) of a body in the default format; for form, of an object with its fields"`
}

// eventTypeForm is one form of the body of an event.
type eventTypeForm struct {
	Field   string           `json:"field,omitempty" doc:"the field that tells this form from others"`
	Value   string           `json:"value,omitempty" doc:"the value of that field"`
	Fields  []eventTypeField `json:"fields" nullable:"false" doc:"in the order of the body; of a record, those of data"`
	Example eventTypeExample `json:"example" doc:"a body with made-up values"`
}

type eventTypeField struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Type        string            `json:"type,omitempty" doc:"a type of JSON Schema; absent where the data decides"`
	Values      []json.RawMessage `json:"values,omitempty" doc:"every possible value; absent where the data decides"`
	Optional    bool              `json:"optional" doc:"a body may lack it"`
}

// eventTypeExample is one body in each format that a webhook may set.
type eventTypeExample struct {
	Envelope    json.RawMessage `json:"envelope" doc:"with the record as a string in data"`
	JSON        json.RawMessage `json:"json" doc:"with the record as an object in data"`
	Form        string          `json:"form" doc:"as application/x-www-form-urlencoded"`
	CloudEvents json.RawMessage `json:"cloudevents" doc:"as a CloudEvent 1.0 in structured JSON; id, subject and time are made up"`
}

func (s *subscriptions) registerEventTypes(routes huma.API) {
	huma.Register(routes, operation("list-event-types", http.MethodGet, "/accounts/{account_id}/event-types", "List the events that there are",
		"The catalog in force: every schema of the record feed and every hook, with its fields, an example in each format, and its JSON Schema. Records come first, in order of name."), handled(s, s.listEventTypes))
}

func (s *subscriptions) listEventTypes(ctx context.Context, in *accountListInput) (*pageAnswer[eventType], error) {
	after, err := startKey[*string](in.StartKey)
	if err != nil {
		return nil, err
	}
	var types []catalog.EventType
	if offer := s.cfg.Offer(ctx); offer.EventTypes != nil {
		types = offer.EventTypes()
	}
	if after != nil {
		at := slices.IndexFunc(types, func(t catalog.EventType) bool { return t.Name == *after })
		if at < 0 {
			return nil, badStartKey() // or of a former catalog
		}
		types = types[at+1:]
	}
	return paged(types, in.PageSize, shownEventType, func(t *catalog.EventType) any { return t.Name }), nil
}

func shownEventType(t *catalog.EventType) eventType {
	shown := eventType{
		Name: t.Name, Kind: t.Kind, Description: t.About, Groups: append([]string{}, t.Groups...), DefaultFormat: t.Format, Targets: append([]string{}, t.Targets...),
		Daily: t.Counted, Extra: t.Extra, JSONSchema: t.Schema, Forms: []eventTypeForm{},
	}
	if shown.DefaultFormat == "" {
		shown.DefaultFormat = "envelope"
	}
	for i := range t.Forms {
		of, example := &t.Forms[i], &t.Examples[i]
		form := eventTypeForm{Value: of.If, Fields: []eventTypeField{}, Example: eventTypeExample{example.Envelope, example.JSON, string(example.Form), example.CloudEvents}}
		if of.If != "" {
			form.Field = of.Key
		}
		for _, f := range of.Fields {
			field := eventTypeField{Name: f.Name, Description: f.About, Type: f.Type, Optional: f.Optional}
			for _, v := range f.Values {
				field.Values = append(field.Values, v.AppendJSON(nil))
			}
			form.Fields = append(form.Fields, field)
		}
		shown.Forms = append(shown.Forms, form)
	}
	return shown
}
