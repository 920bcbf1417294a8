package api

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// headerValues are values of headers by name, each masked where it is shown.
type headerValues map[string]string

// headersOf returns a webhook's headers as a client sends them. A masked value keeps the
// stored one of that name.
func headersOf(sent headerValues, w *admin.Webhook, wrong faults) (headers []admin.Header) {
	seen := map[string]string{} // by name in lower case
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		if fault := outbox.HeaderNameFault(name); fault != "" {
			wrong.add(headerField(name), kindInvalid, "%s", fault)
			continue
		}
		lower := strings.ToLower(name)
		if other, twice := seen[lower]; twice {
			wrong.add(headerField(name), kindInvalid, "is the same header as %s: the case of a name does not count", other)
			continue
		}
		seen[lower] = name
		value := sent[name]
		if value == admin.Masked {
			kept, has := w.KeptHeader(name)
			if !has {
				wrong.add(headerField(name), kindInvalid, "has %s for a value, but none is stored under this name: write the value", admin.Masked)
				continue
			}
			headers = append(headers, kept)
			continue
		}
		if fault := outbox.HeaderValueFault(value); fault != "" {
			wrong.add(headerField(name), kindInvalid, "%s", fault)
			continue
		}
		headers = append(headers, admin.Header{Name: name, Value: value})
	}
	return headers
}

// headerField is how a fault names a header. What is no name is quoted.
func headerField(name string) string {
	if fault := outbox.HeaderNameFault(name); len(name) > outbox.MaxHeaderName || strings.Contains(fault, "no header name") || name == "" {
		return "headers." + printable(name)
	}
	return "headers." + name
}

// withHeaderNames completes the fields that a client sent by the names of its headers, for
// the audit.
func withHeaderNames(names []string, in fields) []string {
	var sent headerValues
	if json.Unmarshal(in.known["headers"], &sent) != nil || len(sent) == 0 {
		return names
	}
	names = slices.Clone(names)
	for i, name := range names {
		if name == "headers" {
			names[i] = "headers (" + strings.Join(slices.Sorted(maps.Keys(sent)), ", ") + ")"
		}
	}
	return names
}

// checkHeaders checks the headers that a webhook has after an edit together, and with its
// URL.
func checkHeaders(w *admin.Webhook, wrong faults) {
	size := 0
	for _, h := range w.Headers {
		size += h.Size()
		if fault := h.MovedFault(w.URL); fault != "" && w.Delivery != admin.DeliveryPull && len(wrong["uri"]) == 0 {
			wrong.add(headerField(h.Name), kindInvalid, "%s", fault)
		}
		if strings.EqualFold(h.Name, "Authorization") && strings.Contains(w.ShownURL(), admin.Masked+"@") {
			wrong.add(headerField(h.Name), kindInvalid, "cannot stand beside the user name and password of the URL, which are sent as this header: remove one of them")
		}
	}
	if size > outbox.MaxHeaderBytes {
		wrong.add("headers", kindInvalid, "have more than %d bytes together, and many receivers accept no more", outbox.MaxHeaderBytes)
	}
	if len(w.Headers) > 0 && w.Delivery == admin.DeliveryPull {
		wrong.add("headers", kindInvalid, "have no place with delivery pull: nothing is sent to such a webhook, its events are read by its feed")
	}
}
