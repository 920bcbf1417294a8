package endtoend

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

// apiSchema is as much of a JSON Schema as a value can be made from.
type apiSchema struct {
	Ref        string                `json:"$ref"`
	Type       any                   `json:"type"` // a text, or a list of them
	Properties map[string]*apiSchema `json:"properties"`
	Required   []string              `json:"required"`
	Items      *apiSchema            `json:"items"`
	Enum       []any                 `json:"enum"`
	Examples   []any                 `json:"examples"`
	Default    any                   `json:"default"`
	Format     string                `json:"format"`
}

// apiRoute is one operation of the OpenAPI document, or a path outside of it.
type apiRoute struct {
	method, path   string
	query, headers []string
	data           *apiSchema // of a body's data; nil for a call without a body
}

func (r apiRoute) String() string { return r.method + " " + r.path }

var pathParameter = regexp.MustCompile(`\{[^}]*\}`)

// readRoutes takes the routes out of an OpenAPI document, in a fixed order.
func readRoutes(text []byte) ([]apiRoute, map[string]*apiSchema, error) {
	var document struct {
		Paths map[string]map[string]struct {
			Parameters  []struct{ Name, In string }
			RequestBody *struct {
				Content map[string]struct{ Schema *apiSchema }
			}
		}
		Components struct{ Schemas map[string]*apiSchema }
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, nil, err
	}
	var routes []apiRoute
	for _, path := range slices.Sorted(maps.Keys(document.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(document.Paths[path])) {
			operation := document.Paths[path][method]
			r := apiRoute{method: strings.ToUpper(method), path: path}
			for _, p := range operation.Parameters {
				switch p.In {
				case "query":
					r.query = append(r.query, p.Name)
				case "header":
					r.headers = append(r.headers, p.Name)
				}
			}
			if operation.RequestBody != nil {
				r.data = operation.RequestBody.Content["application/json"].Schema.Properties["data"]
			}
			routes = append(routes, r)
		}
	}
	return routes, document.Components.Schemas, nil
}

// outsideRoutes are paths that the document does not have.
var outsideRoutes = []apiRoute{
	{method: "GET", path: "/"}, {method: "GET", path: "/healthz"}, {method: "GET", path: "/readyz"}, {method: "GET", path: "/metrics"},
	{method: "GET", path: "/openapi.json"}, {method: "GET", path: "/openapi.yaml"},
}

// maker makes shots. What it makes for a seed and a number depends on nothing else
// but on what the routes are and which tokens and ids there are.
type maker struct {
	routes    []apiRoute
	schemas   map[string]*apiSchema
	account   string
	token     string // of the account
	operator  string
	target    string                     // where webhooks may lead
	ids       func(kind string) []string // of webhooks, tokens, holds
	webhookOf func(replay string) string
}

// shot makes the n-th one of a seed.
func (m *maker) shot(seed, n uint64) shot {
	r := rand.New(rand.NewPCG(seed, n))
	s := shot{route: int(n) % len(m.routes)} // each in turn
	route := m.routes[s.route]
	s.method = route.method
	s.target = m.path(r, route.path) + m.query(r, route)
	s.header = m.auth(r)
	if route.data != nil {
		body := m.document(r, route.data)
		var header string
		s.body, header = m.mangle(r, []byte(body))
		s.header += header
	}
	for _, name := range route.headers {
		if r.IntN(2) == 0 {
			s.header += name + ": " + pick(r, oddValues) + "\r\n"
		}
	}
	if r.IntN(3) == 0 {
		s.header += pick(r, oddHeaders)
	}
	if r.IntN(3) == 0 {
		s.manner = manner(r.IntN(int(manners)))
	}
	switch r.IntN(40) {
	case 0:
		s.method = pick(r, oddMethods)
	case 1:
		s.target = pick(r, oddTargets)
	case 2:
		s.target = oddPath(r, s.target)
	}
	return s
}

// good are requests to a route as the document wants them: with what is required,
// and with each of the others in turn.
func (m *maker) good(round uint64, n int) (all []shot) {
	r := rand.New(rand.NewPCG(round, uint64(n)))
	route := m.routes[n]
	s := shot{route: n, method: route.method, header: "X-Auth-Token: " + m.operator + "\r\n", target: m.fill(route.path, m.right(r))}
	if route.data == nil {
		return []shot{s}
	}
	s.header += "Content-Type: application/json\r\n"
	data := m.resolve(route.data)
	for _, name := range append([]string{""}, slices.Sorted(maps.Keys(data.Properties))...) {
		s.body = []byte(bodyWith(m.members(data, func(other string) bool { return other == name })))
		all = append(all, s)
	}
	return all
}

// goodOnes are those of all routes, to be made when it is their turn: what makes
// things comes first, and again before each call that deletes one.
func (m *maker) goodOnes() (all []func() shot) {
	add := func(route int) {
		for i := range m.good(0, route) {
			all = append(all, func() shot { return m.good(0, route)[i] })
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodGet, http.MethodPatch, http.MethodPost, http.MethodDelete} {
		for n, r := range slices.Backward(m.routes) { // one thing is deleted before all are
			if r.method != method {
				continue
			}
			if parent := path.Dir(r.path); method == http.MethodDelete {
				if maker := slices.IndexFunc(m.routes, func(r apiRoute) bool { return r.method == http.MethodPut && r.path == parent }); maker >= 0 {
					add(maker)
				}
			}
			add(n)
		}
	}
	return all
}

// members are those of a schema's fields that are required or chosen.
func (m *maker) members(data *apiSchema, chosen func(name string) bool) map[string]string {
	members := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(data.Properties)) {
		if chosen(name) || slices.Contains(data.Required, name) {
			members[name] = m.sample(name, data.Properties[name], 0)
		}
	}
	// A new webhook has a URL unless its receiver reads its feed, which no schema says.
	if uri := data.Properties["uri"]; uri != nil && slices.Contains(data.Required, "name") {
		members["uri"] = m.sample("uri", uri, 0)
		if members["delivery"] == `"pull"` {
			delete(members, "uri")
		}
	}
	return members
}

func bodyWith(members map[string]string, more ...string) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		texts = append(texts, `"`+name+`":`+members[name])
	}
	return `{"data":{` + strings.Join(append(texts, more...), ",") + `}}`
}

// fill puts values into the parameters of a path. kind is the part before one.
func (m *maker) fill(template string, value func(kind string) string) string {
	parts := strings.Split(template, "/")
	for i := range parts {
		if pathParameter.MatchString(parts[i]) {
			parts[i] = value(parts[i-1])
			if parts[i-1] == "replay" { // it is of one webhook
				parts[i-2] = cmp.Or(m.webhookOf(parts[i]), parts[i-2])
			}
		}
	}
	return strings.Join(parts, "/")
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func (m *maker) auth(r *rand.Rand) string {
	mine, operator := "X-Auth-Token: "+m.token+"\r\n", "X-Auth-Token: "+m.operator+"\r\n"
	switch r.IntN(16) {
	case 0:
		return ""
	case 1:
		return "X-Auth-Token: " + pick(r, oddValues) + "\r\n"
	case 2:
		return pick(r, []string{"X-Auth-Token: whtok_wrong\r\n", "Authorization: Basic Og==\r\n", "Authorization: Bearer\r\n", mine + operator, "X-Auth-Token:\r\n" + mine,
			"X-Auth-Token: ' OR 1=1 --\r\n", "X-Auth-Token: " + strings.Repeat("t", 8000) + "\r\n", "Authorization: Bearer \x80\r\n"})
	case 3, 4, 5, 6, 7:
		return operator
	case 8:
		return "Authorization: bEARER  " + m.token + "\r\n"
	}
	return mine
}

// right is a value for a parameter of a path that names something.
func (m *maker) right(r *rand.Rand) func(kind string) string {
	return func(kind string) string {
		if kind == "accounts" {
			return m.account
		}
		if ids := m.ids(kind); len(ids) > 0 {
			return url.PathEscape(pick(r, ids))
		}
		return "account"
	}
}

func (m *maker) path(r *rand.Rand, template string) string {
	right := m.right(r)
	return m.fill(template, func(kind string) string {
		switch r.IntN(40) {
		case 0, 1:
			return pick(r, oddSegments)
		case 2, 3:
			return url.PathEscape(pick(r, oddValues))
		}
		return right(kind)
	})
}

func (m *maker) query(r *rand.Rand, route apiRoute) string {
	if r.IntN(3) > 0 {
		return ""
	}
	if r.IntN(6) == 0 {
		return pick(r, oddQueries)
	}
	var parts []string
	for range 1 + r.IntN(3) {
		name := "x"
		if len(route.query) > 0 {
			name = pick(r, route.query)
		}
		part := name + "=" + url.QueryEscape(pick(r, oddValues))
		switch r.IntN(10) {
		case 0:
			part += "&" + part
		case 1:
			part = name
		case 2:
			part = name + "=" + pick(r, oddSegments)
		}
		parts = append(parts, part)
	}
	return "?" + strings.Join(parts, "&")
}

// oddPath changes how a path is written.
func oddPath(r *rand.Rand, path string) string {
	at := r.IntN(len(path))
	return pick(r, []string{"/" + path, path + "/", path + "//", path[:at], path + "/..", path + "/%2e%2e", strings.ReplaceAll(path, "/", "%2f"), strings.ReplaceAll(path, "/", "//"),
		path[:at] + "%" + path[at:], path[:at] + "%00" + path[at:], path + "#x", path[:at] + "\\" + path[at:], strings.ToUpper(path), path + ";a=b", path[:at] + "\x80" + path[at:], path[1:],
		"http://walhook" + path, "https://other.example:1" + path, strings.Replace(path, "/v2", "/v3", 1), "/./" + path, path + "/" + strings.Repeat("a/", 2000)})
}

// document is a body: as the schema wants it, or with one thing or two that it
// does not want.
func (m *maker) document(r *rand.Rand, data *apiSchema) string {
	data = m.resolve(data)
	members := m.members(data, func(string) bool { return r.IntN(8) == 0 })
	names := slices.Sorted(maps.Keys(data.Properties))
	for range r.IntN(3) {
		if len(names) == 0 {
			break
		}
		name := pick(r, names)
		members[name] = m.odd(r, m.resolve(data.Properties[name]))
	}
	var more []string
	if r.IntN(30) == 0 {
		more = append(more, pick(r, oddJSON)+`:1`)
	}
	if len(names) > 0 && r.IntN(30) == 0 {
		more = append(more, `"`+pick(r, names)+`":1`)
	}
	return bodyWith(members, more...)
}

// odd is a value that a field may not want: a wrong one, or one inside of what it
// wants.
func (m *maker) odd(r *rand.Rand, schema *apiSchema) string {
	value := pick(r, oddJSON)
	if r.IntN(3) == 0 {
		quoted, _ := json.Marshal(pick(r, oddValues))
		value = string(quoted)
	}
	switch {
	case schema.Items != nil && r.IntN(2) == 0:
		return `[` + value + `]`
	case len(schema.Properties) > 0 && r.IntN(2) == 0:
		return `{"` + pick(r, slices.Sorted(maps.Keys(schema.Properties))) + `":` + value + `}`
	case schema.Type == "object" && r.IntN(2) == 0:
		return `{"a":{"b":[` + value + `]}}`
	}
	return value
}

func (m *maker) resolve(schema *apiSchema) *apiSchema {
	for schema != nil && schema.Ref != "" {
		schema = m.schemas[schema.Ref[strings.LastIndex(schema.Ref, "/")+1:]]
	}
	if schema == nil {
		return &apiSchema{}
	}
	return schema
}

// sample is a value that a schema allows.
func (m *maker) sample(name string, schema *apiSchema, depth int) string {
	schema = m.resolve(schema)
	switch name {
	case "uri", "url":
		return `"` + m.target + `"`
	case "host":
		return `"held.example"`
	}
	for _, values := range [][]any{schema.Enum, schema.Examples} {
		if len(values) > 0 {
			text, _ := json.Marshal(values[0])
			return string(text)
		}
	}
	if schema.Default != nil {
		text, _ := json.Marshal(schema.Default)
		return string(text)
	}
	kind, _ := schema.Type.(string)
	if kinds, several := schema.Type.([]any); several && len(kinds) > 0 {
		kind, _ = kinds[0].(string)
	}
	switch kind {
	case "integer", "number":
		return "1"
	case "boolean":
		return "true"
	case "array":
		if schema.Items == nil || depth > 4 {
			return "[]"
		}
		return "[" + m.sample("", schema.Items, depth+1) + "]"
	case "object", "":
		var texts []string
		for _, member := range slices.Sorted(maps.Keys(schema.Properties)) {
			if depth < 4 {
				texts = append(texts, `"`+member+`":`+m.sample(member, schema.Properties[member], depth+1))
			}
		}
		return "{" + strings.Join(texts, ",") + "}"
	}
	return `"x"`
}

// mangle changes the bytes of a body, and says what its headers say of it.
func (m *maker) mangle(r *rand.Rand, body []byte) (changed []byte, header string) {
	header = "Content-Type: application/json\r\n"
	at := r.IntN(len(body) + 1)
	switch r.IntN(40) {
	case 0:
		body = body[:at]
	case 1:
		body = append(body, pick(r, []string{"{}", "\x00", "]", "x", "\n\n\t ", `{"data":{}}`, "\xff"})...)
	case 2:
		body = append([]byte("\xef\xbb\xbf"), body...)
	case 3:
		body = append([]byte("\xef\xbb\xbf\xef\xbb\xbf"), body...)
	case 4:
		body = inUTF16(body)
		header = pick(r, []string{header, "Content-Type: application/json; charset=utf-16\r\n", "Content-Type: application/json; charset=UTF-16LE\r\n"})
	case 5:
		body = packed(body, "gzip")
		header += pick(r, []string{"", "Content-Encoding: gzip\r\n", "Content-Encoding: GZIP, identity\r\n", "Content-Encoding: x-gzip\r\nContent-Encoding: gzip\r\n"})
	case 6:
		body = packed(body, "deflate")
		header += "Content-Encoding: deflate\r\n"
	case 7:
		body = []byte(pick(r, oddJSON))
	case 8:
		body = []byte(`{"data":` + pick(r, oddJSON) + `}`)
	case 9:
		body = slices.Concat(body[:at], []byte{byte(r.IntN(256))}, body[at:])
	case 10:
		body = bytes.Replace(body, []byte("data"), []byte(pick(r, []string{"Data", "DATA", `d\u0061ta`, "dat", "data\x00"})), 1)
	case 11:
		body = append([]byte(`{"data":{},`), body[1:]...)
	case 12:
		body = append(bytes.Repeat([]byte(" "), pick(r, []int{1000, 250 << 10, 300 << 10})), body...)
	case 13:
		body = []byte("[" + string(body) + "]")
	case 14:
		header = pick(r, []string{"", "Content-Type: text/xml\r\n", "Content-Type: application/json, text/plain\r\n", "Content-Type: \x80\r\n", "Content-Type: application/json; charset=\"\r\n",
			"Content-Type: application/json\r\nContent-Type: text/plain\r\n", "Content-Type: application/json; charset=utf-7\r\n", "Content-Type: multipart/form-data; boundary=x\r\n",
			"Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: application/vnd.x+json\r\n", "Content-Type:" + strings.Repeat(" ;a=b", 1000) + "\r\n"})
	case 15:
		body = nil
	case 16:
		body = slices.Concat([]byte(`{"data":{"custom_data":{`), bytes.Repeat([]byte(`"a":1,`), 20000), []byte(`"b":1}}}`))
	}
	return body, header
}

func inUTF16(text []byte) []byte {
	out := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(string(text))) {
		out = append(out, byte(unit), byte(unit>>8))
	}
	return out
}

func packed(text []byte, coding string) []byte {
	var b bytes.Buffer
	if coding == "gzip" {
		w := gzip.NewWriter(&b)
		_, _ = w.Write(text)
		_ = w.Close()
	} else {
		w := zlib.NewWriter(&b)
		_, _ = w.Write(text)
		_ = w.Close()
	}
	return b.Bytes()
}

// oddTimes are instants at the ends of what others can write, and what is none.
var oddTimes = []string{
	"0000-01-01T00:00:00Z", "0000-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999-23:59", "9999-12-31T23:59:59+23:59",
	"10000-01-01T00:00:00Z", "275760-09-13T00:00:00Z", "+275760-09-13T00:00:00.001Z", "-271821-04-20T00:00:00Z", "294277-01-01T00:00:00Z", "-4714-11-24T00:00:00Z",
	"2016-12-31T23:59:60Z", "2016-12-31T23:59:61Z", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00-00:00", "2026-01-01t00:00:00z",
	"2026-01-01 00:00:00", "2026-01-01T00:00:00,5Z", "2026-01-01T00:00:00.0000000000000000000001Z", "1582-10-10T00:00:00Z", "2026-W01-1", "infinity", "-infinity", "now", "today",
	"1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01", "1767225600", "24:00", "23:59", "Mars/Olympus", "../../etc/passwd", "Pacific/Kiritimati",
}

// oddValues are texts for a place that wants one.
var oddValues = append([]string{
	"", " ", "x", "0", "-1", "1", "500", "501", "99999999999999999999", "-9223372036854775809", "1e3", "1e400", "NaN", "Infinity", "3.0", "0x10", "true", "null", "[]", "{}",
	"a\x00b", "\xff\xfe", "\xed\xa0\xbd", "\ufeff", "\u202e", "\u2028", "ж", "😀", strings.Repeat("w", 5000), "../..", "%", "%00", "%zz", "'; DROP TABLE x; --", "*", "$1", "\\", "\"",
	"LTE", "ImFcdWQ4M2QiCg", "eyJJRCI6Ilx1MDAwMCJ9", "WzFlNDAwXQ", "OTIyMzM3MjAzNjg1NDc3NTgwNw", "LTkyMjMzNzIwMzY4NTQ3NzU4MDg", "account", "evt_0000000000000001_1",
	"http://10.0.0.1/", "http://[::1", "http://127.0.0.1:99999/", "http://169.254.169.254/latest", "javascript:alert(1)", "//127.0.0.1", "file:///etc/passwd", "http://\u0000/", "http://a\\@127.0.0.2/",
	"GET", "delete", "daily", "get", "form", "all", "object", "notifications", "failed", "delivered", `"x"`, `W/"1"`, "gzip;q=0", "bytes=0-",
}, oddTimes...)

// oddJSON are values that JSON or a reader of it may have trouble with.
var oddJSON = []string{
	`null`, `true`, `false`, `""`, `"x"`, `[]`, `{}`, `[[]]`, `[null]`, `{"a":null}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"":1}`, `[1,2,3]`, `"1"`,
	`0`, `-0`, `-0.0`, `1`, `-1`, `3.0`, `1e0`, `0.1E1`, `3.5`, `1e400`, `-1e400`, `1e-400`, `1e-300`, `1e300`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775809`,
	strings.Repeat("9", 100), `0.` + strings.Repeat("0", 100) + `1`, strings.Repeat("9", 20000), `1e99999999999`,
	`NaN`, `Infinity`, `-Infinity`, `"NaN"`, `0x10`, `01`, `.5`, `1.`, `+1`, `1_000`, `'x'`, `undefined`, `{a:1}`, `[1,]`, `{"a":1,}`, `// x`, `/**/1`,
	`"\ud83d"`, `"\udc00\ud800"`, `"\ud83d\ude00"`, `{"\ud83d":1}`, `"\u0000"`, "\"a\x00b\"", "\"\xff\"", "\"\xed\xa0\xbd\"", "\"\xc0\x80\"", "\"\xf5\x80\x80\x80\"", `"\ufeff"`, `"\u202e\u2066"`, `"\x41"`, `"\u12"`, "\"\n\"", `"`, `"\`,
	strings.Repeat("[", 40) + strings.Repeat("]", 40), strings.Repeat("[", 9000) + strings.Repeat("]", 9000), strings.Repeat(`{"a":`, 31) + "1" + strings.Repeat("}", 31), strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000),
	strings.Repeat("[", 100_000), `"` + strings.Repeat("ж", 20000) + `"`, `[` + strings.TrimSuffix(strings.Repeat(`"x",`, 2000), ",") + `]`,
}

// oddSegments are parts of a path or a query as they are written.
var oddSegments = []string{
	"%00", "a%00", "%ff%fe", "%ed%a0%bd", "%2e%2e", "..", ".", "%2f", "..%2f..%2f8", "%", "%z", "%5c", "%25", "%E2%80%A6", "a%0d%0ab", "a;b", "a&b=c", "+", "*", "%20", "~", "@", ":", "account", "dead", "attempts",
	strings.Repeat("w", 5000), strings.Repeat("%41", 300), "\x80", "ä", "\"", "{}", "[]", "|", "-1", "0", "99999999999999999999999999",
}

var oddQueries = []string{
	"?", "?&", "?=", "?&&&=&", "?page_size=1&page_size=2", "?page_size", "?page_size=-1", "?page_size=0", "?page_size=501", "?page_size=1.0", "?page_size=%31", "?page_size=+1", "?start_key=%", "?start_key=%ff", "?start_key=a;b",
	"?" + strings.Repeat("a=b&", 2000), "?" + strings.Repeat("x", 6000), "?%00=%00", "?a=%zz", "??", "?a=?", "?page_size=99999999999999999999", "?page%5Fsize=3", "?page_size[]=3",
}

// oddHeaders are lines that come on top.
var oddHeaders = []string{
	flood(1000, 4), flood(3000, 1), flood(100, 280), flood(1, 20_000), flood(1, 40_000), flood(10, 10_000),
	"X-A: b\r\n c\r\n", "X-A : b\r\n", "X-A\r\n", ": x\r\n", "X-A: \x00\r\n", "X-A: \x80\xff\r\n", "X-A: b\n", "X-A: b\rX-B: c\r\n", "\x00: a\r\n", "X A: b\r\n", "X-(: b\r\n", " X-A: b\r\n",
	"Host: walhook\r\n", "Host: other\r\n", "Content-Length: abc\r\n", "Content-Length: -1\r\n", "Content-Length: +5\r\n", "Content-Length: 5, 5\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n",
	"Content-Length: 99999999999999999999\r\n", "Content-Length: 9223372036854775807\r\n", "Content-Length: 0x5\r\n", "Content-Length: \r\n", "Content-Length: 300000\r\n",
	"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: identity\r\n", "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding:  chunked\r\n", "Transfer-Encoding: xchunked\r\n",
	"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "Transfer-Encoding: CHUNKED\r\n", "Transfer-Encoding : chunked\r\n", "Transfer-Encoding: \x0bchunked\r\n", "Trailer: Content-Length\r\n", "TE: trailers, deflate;q=0.5\r\n",
	"Expect: 100-continue\r\n", "Expect: something\r\n", "Connection: close\r\n", "Connection: close, X-Auth-Token\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
	"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n", "Keep-Alive: timeout=99999999999\r\n", "Proxy-Connection: keep-alive\r\n",
	"Accept: image/png;q=\xff\r\n", "Accept: text/event-stream\r\n", "Accept: application/cbor\r\n", "Accept: \r\n", "Accept-Encoding: gzip, deflate, br, zstd\r\n", "Accept-Charset: utf-16\r\n", "Range: bytes=0-1\r\n", "If-Range: x\r\n",
	"If-Match: *\r\n", "If-Match: \"\xff\"\r\n", "If-Match: \"x\"\r\nIf-Match: \"y\"\r\n", "If-None-Match: *\r\n", "If-Modified-Since: 9999\r\n", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
	"Idempotency-Key: " + strings.Repeat("k", 5000) + "\r\n", "Idempotency-Key: \x80\r\n", "Idempotency-Key: k\r\nIdempotency-Key: l\r\n", "Idempotency-Key: \r\n", "Idempotency-Key: same\r\n", "Idempotency-Key: \"a b\"\r\n",
	"X-Request-Id: \x80\xff\r\n", "X-Request-Id: " + strings.Repeat("i", 200) + "\r\n", "X-Request-Id: a\r\nX-Request-Id: b\r\n", "X-Request-Id: \"<script>\r\n",
	"X-Forwarded-For: 1.2.3.4, \x80, [::1]:99999\r\n", "Forwarded: for=\"[::1\";;,=\r\n", "X-Forwarded-Proto: gopher\r\n", "X-HTTP-Method-Override: DELETE\r\n", "Cookie: " + strings.Repeat("a=b; ", 500) + "\r\n", "Origin: null\r\n", "Last-Event-ID: \x80\r\n",
	"Origin: http://evil.example\r\nAccess-Control-Request-Method: PUT\r\n", "Content-Type: text/html\r\n", "Content-Encoding: br\r\n", "Content-Encoding: identity\r\n", "Content-Language: \x80\r\n", "Max-Forwards: 0\r\n", "Via: 1.1 a, 1.1 b\r\n",
}

func flood(lines, length int) string {
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "X-%d: %s\r\n", i, strings.Repeat("v", length))
	}
	return b.String()
}

var oddMethods = []string{
	http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect, "PROPFIND", "BREW", "get", "GE T", "", "\x00", "PRI", strings.Repeat("M", 3000), "PUT", "POST", "PATCH", "DELETE", "GET",
}

var oddTargets = []string{
	"*", "/", "//", "/v2", "/v2/", "/api/v1/accounts", "/v2/accounts", "/v2/accounts//webhooks", "/v2/accounts/%2f/webhooks", "/webhooks", "/favicon.ico", "/robots.txt", "/.env", "/../../etc/passwd", "/..%2f..%2fetc/passwd",
	"/v2/../v2/accounts/1/webhooks", "/v2//accounts/1/webhooks", "/%", "/%zz", "/\x80", "/ ", "", "v2", "?", "#", "http://", "http://walhook", "http://walhook/healthz", "walhook:80", "/healthz/", "/healthz/x", "/HEALTHZ", "/metrics/", "/openapi.json/",
	"/openapi.json?x=%zz", "/portal/", "/portal/%2e%2e/x", "/debug/pprof/", "/docs", "/" + strings.Repeat("a", 20_000), "/" + strings.Repeat("a/", 8_000), "/" + strings.Repeat("%2e%2e/", 1000), "*/x", "/v2;/accounts", "http://[::1/x", "/\\", "/v2/accounts/1/webhooks/..;/",
}
