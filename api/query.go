package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// checkQuery refuses a parameter that the call does not have, or that is empty or there
// twice: a filter that is ignored shows what nobody asked for.
func checkQuery(ctx huma.Context, next func(huma.Context)) {
	known := &huma.Schema{Properties: map[string]*huma.Schema{}}
	for _, p := range ctx.Operation().Parameters {
		if p.In == "query" {
			known.Properties[p.Name] = p.Schema
		}
	}
	r, w := humago.Unwrap(ctx)
	wrong := faults{}
	for name, values := range r.URL.Query() {
		switch {
		case name == kazooPaginate && r.Method == http.MethodGet:
		case known.Properties[name] == nil:
			wrong.add(clipped(name), kindInvalid, "%s", unknownParameter(name, known))
		case len(values) > 1:
			wrong.add(name, kindInvalid, "is set more than once")
		case values[0] == "":
			wrong.add(name, kindInvalid, "is empty: leave the parameter out")
		}
		if len(wrong) == maxQueryFaults {
			break
		}
	}
	if f := wrong.failure(); f != nil {
		refuse(w, callOf(ctx.Context()).id, f)
		return
	}
	next(ctx)
}

// kazooPaginate is what clients of Kazoo send with every list. Pages come all the same.
const kazooPaginate = "paginate"

// maxQueryFaults bounds how many faults of a query an answer names.
const maxQueryFaults = 10

func clipped(name string) string {
	if len(name) > 64 {
		return strings.ToValidUTF8(name[:64], "") + "…"
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}

func unknownParameter(name string, known *huma.Schema) string {
	var names []string
	for have := range known.Properties {
		names = append(names, have)
	}
	slices.Sort(names)
	switch likely := meant(name, known); {
	case len(names) == 0:
		return "unknown parameter: this call has none"
	case len(likely) > 0:
		return "unknown parameter: did you mean " + strings.Join(likely, " or ") + "?"
	}
	return "unknown parameter: want " + strings.Join(names, ", ")
}

// queryTime reads a time of a query; "" is none.
func queryTime(name, text string, wrong faults) (t time.Time) {
	if text == "" {
		return t
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	switch {
	case strings.Contains(text, " ") && strictTime.MatchString(strings.Replace(text, " ", "+", 1)):
		wrong.add(name, kindInvalid, "has a blank in place of its +: write + as %%2B")
	case err != nil || !strictTime.MatchString(text):
		wrong.add(name, kindInvalid, "want an RFC 3339 time such as 2026-03-09T00:00:00Z")
	case t.UTC().Year() < 1970 || t.UTC().Year() > 9999:
		wrong.add(name, kindInvalid, "want a time between the years 1970 and 9999")
	}
	return t
}

// queryRecord checks a record's name of a query. Its key is of the source, and may hold
// every character but NUL.
func queryRecord(name, text string, wrong faults) {
	if text != "" && !isID(text, maxQueryText) {
		wrong.add(name, kindInvalid, "%s", fmt.Sprintf("contains the character U+0000 or invalid UTF-8, or is longer than %d bytes", maxQueryText))
	}
}

// queryText checks a text of a query.
func queryText(name, text string, wrong faults) {
	if text != "" && (!isID(text, maxQueryText) || hasControl(text)) {
		wrong.add(name, kindInvalid, "%s", fmt.Sprintf("contains a control character or invalid UTF-8, or is longer than %d bytes", maxQueryText))
	}
}

// maxQueryText is longer than any name of a record, in bytes.
const maxQueryText = 2048
