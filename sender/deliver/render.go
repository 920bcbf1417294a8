package deliver

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"walhook/outbox"
	"walhook/schemas"
)

// The formats that an endpoint or an event names (docs/CONTRACT.md §7).
const (
	formatEnvelope = "envelope" // {"type":…,"schema":…,"data":"…"}, data being a JSON string
	formatJSON     = "json"     // the object itself
	formatForm     = "form"     // application/x-www-form-urlencoded
)

const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// request is one event in the form that an endpoint wants it in. What is signed
// is the body, or for a GET, which has none, the query that was added.
type request struct {
	method      string
	contentType string // "" without a body
	body        []byte
	query       string // added to that of the URL
}

func (r *request) signed() []byte {
	if r.method == http.MethodGet {
		return []byte(r.query)
	}
	return r.body
}

// render makes the request of an event. Without settings, which is what most
// endpoints are, it is the log's body as it stands.
func render(s *outbox.EndpointSettings, event *outbox.Event) (request, error) {
	r := request{method: http.MethodPost, contentType: typeJSON, body: event.Body}
	if s == nil && event.Format == "" {
		return r, nil
	}
	if s == nil {
		s = &outbox.EndpointSettings{}
	}
	switch s.HTTPVerb {
	case "get":
		r.method, r.contentType, r.body = http.MethodGet, "", nil
	case "put":
		r.method = http.MethodPut
	}
	format := cmp.Or(s.Format, event.Format, formatEnvelope)
	asStored := format == formatEnvelope
	if event.Format != "" {
		asStored = format == formatJSON
	}
	if r.method != http.MethodGet && asStored && s.CustomData == nil {
		return r, nil
	}
	members, err := compose(s.CustomData, event, format)
	if err != nil {
		return request{}, fmt.Errorf("render: %w", err)
	}
	switch {
	case r.method == http.MethodGet:
		var query []byte
		query, err = schemas.AppendForm(nil, members)
		r.query = string(query)
	case format == formatForm:
		r.contentType = typeForm
		r.body, err = schemas.AppendForm(make([]byte, 0, len(event.Body)), members)
	default:
		r.body = schemas.AppendObject(make([]byte, 0, len(event.Body)+len(s.CustomData)), members)
	}
	if err != nil {
		return request{}, fmt.Errorf("render: %w", err)
	}
	return r, nil
}

// compose merges the custom data into an event, and gives it the outer form that
// the format asks for. The log has the record feed as envelopes, everything else
// as the object.
func compose(custom []byte, event *outbox.Event, format string) ([]schemas.Member, error) {
	members, err := schemas.ParseObject(event.Body)
	if err != nil {
		return nil, err
	}
	if custom != nil {
		own, err := schemas.ParseObject(custom)
		if err != nil {
			return nil, fmt.Errorf("custom data: %w", err)
		}
		for _, m := range own {
			members = schemas.SetMember(members, m)
		}
	}
	if event.Format == "" {
		if format == formatJSON {
			openData(members)
		}
		return members, nil
	}
	if format == formatEnvelope {
		return []schemas.Member{
			schemas.StringMember("type", []byte(event.Type)),
			schemas.StringMember("schema", []byte(event.Schema)),
			schemas.StringMember("data", schemas.AppendObject(nil, members)),
		}, nil
	}
	return members, nil
}

// openData makes an object of an envelope's data. One that custom data has
// overwritten with something else stays what it is.
func openData(members []schemas.Member) {
	for i := range members {
		if members[i].Name != "data" {
			continue
		}
		var text string
		if json.Unmarshal(members[i].Value, &text) != nil {
			return
		}
		if _, err := schemas.ParseObject([]byte(text)); err == nil {
			members[i].Value = json.RawMessage(text)
		}
	}
}

// joinQuery adds a query to a URL's own, and drops the fragment, which no
// request carries.
func joinQuery(target *url.URL, query string) {
	target.Fragment, target.RawFragment = "", ""
	if query == "" {
		return
	}
	if target.RawQuery != "" && !strings.HasSuffix(target.RawQuery, "&") {
		target.RawQuery += "&"
	}
	target.RawQuery += query
	target.ForceQuery = false
}
