package admin

import (
	"fmt"
	"slices"
	"strings"

	"walhook/outbox/address"
	"walhook/outbox/seal"
)

// Header is a static header of a webhook's requests.
type Header struct {
	Name string
	// Value is a new value; "" keeps the stored one.
	Value  string
	stored string // its value as it is stored
	url    string // the URL that it is stored for
}

// storedHeaders are the headers of a webhook's row, whose values may not be readable.
func storedHeaders(url string, names, values []string) (headers []Header) {
	for i, name := range names {
		headers = append(headers, Header{Name: name, stored: values[i], url: url})
	}
	return headers
}

// KeptHeader is the stored header of a name, in any case, under the name as it is given
// now; false where there is none.
func (w *Webhook) KeptHeader(name string) (Header, bool) {
	i := slices.IndexFunc(w.Headers, func(h Header) bool { return h.stored != "" && strings.EqualFold(h.Name, name) })
	if i < 0 {
		return Header{}, false
	}
	kept := w.Headers[i]
	kept.Name = name
	return kept, true
}

// Size is how many bytes name and value have, or up to two more.
func (h *Header) Size() int {
	if h.Value != "" {
		return len(h.Name) + len(h.Value)
	}
	return len(h.Name) + seal.Size(h.stored)
}

// MovedFault says for people why a header's stored value is not sent to a URL; "" where it
// is. It stays with the host and port that it was set for, and is not sent in clear text
// once it was set for https.
func (h *Header) MovedFault(to string) string {
	if h.Value != "" || address.Origin(h.url) == address.Origin(to) {
		return ""
	}
	const again = ": write its value again, or remove it"
	before, unread := address.Parse(h.url)
	after, err := address.Parse(to)
	switch {
	case unread != nil || err != nil || isOtherHost(before, after):
		return "was set for another host or port than that of the URL" + again
	case isDowngrade(before, after):
		return "would be sent in clear text, and was set for https" + again
	}
	return ""
}

// sealHeaders are names and values of a webhook's headers as they are stored.
func (a *Admin) sealHeaders(w *Webhook) (names, values []string, err error) {
	names, values = []string{}, []string{}
	of := seal.Holder{Account: w.Account, Webhook: w.ID}
	for _, h := range slices.SortedFunc(slices.Values(w.Headers), func(a, b Header) int { return strings.Compare(a.Name, b.Name) }) {
		value := h.stored
		if fault := h.MovedFault(w.URL); fault != "" {
			return nil, nil, fmt.Errorf("header %s %s", h.Name, fault)
		}
		if h.Value == "" && address.Origin(h.url) != address.Origin(w.URL) {
			if h.Value, err = a.secrets.Open(h.stored, of.Header(h.url, h.Name), w.strict); err != nil {
				return nil, nil, fmt.Errorf("header %s: %w", h.Name, ErrUnreadable)
			}
		}
		if h.Value != "" {
			value = a.secrets.Seal(h.Value, of.Header(w.URL, h.Name))
		}
		names, values = append(names, h.Name), append(values, value)
	}
	return names, values, nil
}

// HeaderNames are the names of a webhook's headers, in their order.
func (w *Webhook) HeaderNames() []string {
	var names []string
	for _, h := range w.Headers {
		names = append(names, h.Name)
	}
	slices.Sort(names)
	return names
}
