package deliver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
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

// url is where the request goes: for a GET, with what is sent in its query.
func (x *attempt) url() *url.URL {
	if x.sent.method != http.MethodGet {
		return x.target.url
	}
	u := *x.target.url
	joinQuery(&u, x.sent.query)
	return &u
}

// request is made anew for each try, since it holds a body that is read once.
// The names of headers are as the contract writes them, on the wire too. Its URL
// names the peer instead of the host.
func (x *attempt) request() *http.Request {
	u := *x.url()
	host := u.Host
	u.Host = x.peer.host
	header := http.Header{
		"User-Agent":        {x.http.targets.userAgent},
		"webhook-id":        {x.id},
		"webhook-timestamp": {x.timestamp},
		"webhook-signature": {x.signature},
	}
	if x.sent.contentType != "" {
		header["Content-Type"] = []string{x.sent.contentType}
	}
	if x.target.authorization != "" {
		header["Authorization"] = []string{x.target.authorization}
	}
	// Without a body the header is to end the request: over HTTP/2 net/http goes by
	// the type, and a proxy makes a chunked body of a stream that stays open.
	body := func() (io.ReadCloser, error) {
		if len(x.sent.body) == 0 {
			return http.NoBody, nil
		}
		return io.NopCloser(bytes.NewReader(x.sent.body)), nil
	}
	first, _ := body() // it does not fail
	return &http.Request{
		Method: x.sent.method,
		URL:    &u, Host: host,
		Header:        header,
		Body:          first,
		GetBody:       body,
		ContentLength: int64(len(x.sent.body)),
	}
}

// appendHead appends the request as HTTP/1.1 has it, up to its body: the same
// bytes as net/http writes for request, most of which the target has at hand.
func (x *attempt) appendHead(b []byte) ([]byte, error) {
	if x.sent.method == http.MethodGet || x.target.head == nil {
		req := x.request()
		req.Body = nil // a GET has none; for any other method this fails before it would come to it
		head := bytes.NewBuffer(b)
		err := req.Write(head)
		return head.Bytes(), err
	}
	b = append(append(b, x.sent.method...), x.target.head...)
	b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(x.sent.body)), 10), "\r\n"...)
	if x.target.authorization != "" {
		b = appendHeader(b, "Authorization: ", x.target.authorization)
	}
	b = appendHeader(b, "Content-Type: ", x.sent.contentType)
	b = appendHeader(b, "webhook-id: ", x.id)
	b = appendHeader(b, "webhook-signature: ", x.signature)
	b = appendHeader(b, "webhook-timestamp: ", x.timestamp)
	return append(b, "\r\n"...), nil
}

func appendHeader(b []byte, name, value string) []byte {
	return append(append(append(b, name...), value...), "\r\n"...)
}
