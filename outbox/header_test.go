package outbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

// What passes is a field of RFC 9110, by other people's reading too, and none that frames
// a message.
func FuzzHeader_WhatPassesIsOneField(f *testing.F) {
	for _, seed := range [][2]string{
		{"X-Api-Key", "abc"}, {"Authorization", "Bearer x"}, {"Host", "x"}, {"content-length", "5"}, {"X", "a\r\nB: c"},
		{"X\r\nB", "c"}, {"X ", "c"}, {"X", "\t"}, {"ſ", "x"}, {"Content-Length", "0"}, {"K", "x"}, {"X", "a\x00"}, {"X", "é"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if HeaderNameFault(name) != "" || HeaderValueFault(value) != "" {
			return
		}
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || strings.TrimSpace(value) != value || value == "" {
			t.Errorf("%q: %q passes", name, value)
		}
		switch canonical := http.CanonicalHeaderKey(name); canonical {
		case "Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "Keep-Alive", "Te", "Trailer", "Upgrade", "Proxy-Connection",
			"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "User-Agent", "Expect", "Accept-Encoding":
			t.Errorf("%q passes", canonical)
		}
	})
}

// What somebody wrote into a row is no header of a request, and stops its endpoint alone.
func TestHeaders_OfADamagedRowHoldTheirEndpointAlone(t *testing.T) {
	w := newWorldAlone(t)
	var list []int64
	for n := range 3 {
		list = append(list, w.endpoint(t, fmt.Sprint(n)))
	}
	w.exec(t, "UPDATE walhook.endpoint SET webhook = repeat(id::text, 32), header_names = '{X-A}', header_values = '{1}'")
	s, _ := w.join(t)
	for _, c := range []struct{ names, values string }{
		{"{Host}", "{x}"}, {"{webhook-id}", "{x}"}, {"{Content-Length}", "{7}"}, {`{"X-A: 1\r\nX-B"}`, "{x}"},
		{"{X-A}", `{"x` + "\r\n" + `Host: y"}`}, {"{X-A,x-a}", "{1,2}"}, {`{""}`, "{x}"}, {"{X-A}", `{""}`}, {"{X-A}", "{sealed:v2:AAAA}"},
	} {
		w.exec(t, "UPDATE walhook.endpoint SET header_names = $2::text[], header_values = $3::text[] WHERE id = $1", list[1], c.names, c.values)
		endpoints, err := s.Endpoints(t.Context(), list)
		if err != nil || len(endpoints) != len(list) {
			t.Fatalf("%d endpoints, %v", len(endpoints), err)
		}
		for _, e := range endpoints {
			if bad := e.ID == list[1]; bad != (e.State == EndpointUnusable) || bad == (len(e.Headers) == 1) || bad && strings.Contains(e.Reason, "\n") {
				t.Errorf("%s %s: endpoint %d is %s (%s) with %q", c.names, c.values, e.ID, e.State, e.Reason, e.Headers)
			}
		}
	}
	for what, sql := range map[string]string{
		"a name without a value": "UPDATE walhook.endpoint SET header_names = '{X-A,X-B}'",
		"a value that is null":   "UPDATE walhook.endpoint SET header_values = '{NULL}'",
		"headers of the own one": "UPDATE walhook.endpoint SET webhook = 'account'",
	} {
		if _, err := w.conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("the outbox stores %s", what)
		}
	}
	w.exec(t, "UPDATE walhook.endpoint SET header_names = '{X-A}', header_values = '{1}'")
	endpoints, err := s.Endpoints(t.Context(), list)
	if err != nil || slices.ContainsFunc(endpoints, func(e Endpoint) bool { return e.State != EndpointActive }) {
		t.Errorf("well again: %v, %v", endpoints, err)
	}
}
