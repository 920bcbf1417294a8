package bench

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
)

// takeBatch counts a request that carries an array (docs/RECEIVERS.md, "A batch"), and
// reports whether to answer 2xx. It reads the array without walhook's code.
func (c *count) takeBatch(account string, copy int64, header http.Header, body []byte) bool {
	list := header.Get("webhook-event-ids")
	ids, elements := strings.Split(list, ","), cutArray(body)
	sum := sha256.Sum256([]byte(list))
	switch id := header.Get("webhook-id"); {
	case len(elements) == 0 || len(elements) != len(ids):
		c.note("%d ids, but %d elements in an array: %s %s", len(ids), len(elements), list, body)
		return false
	case len(elements) > c.Batch:
		c.note("a batch has %d events, at most %d are wanted", len(elements), c.Batch)
		return false
	case id != fmt.Sprintf("batch_%x", sum[:16]):
		c.note("batch %s is not that of its events %s", id, list)
		return false
	}
	good := true
	for i, element := range elements {
		good = c.takeEvent(account, copy, header, ids[i], element, body) && good
	}
	return good
}

// cutArray returns the elements of an array of envelopes; nil if it is none. In a string
// a quotation mark has a backslash before it, so `"},{"` stands only between elements.
func cutArray(body []byte) (elements [][]byte) {
	rest, opened := bytes.CutPrefix(body, []byte("["))
	rest, closed := bytes.CutSuffix(rest, []byte("]"))
	if !opened || !closed {
		return nil
	}
	const end, between = len(`"}`), `"},{"`
	for {
		i := bytes.Index(rest, []byte(between))
		if i < 0 {
			return append(elements, rest)
		}
		elements = append(elements, rest[:i+end])
		rest = rest[i+end+len(","):]
	}
}
