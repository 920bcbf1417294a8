package bench

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func did(record, account int) []byte {
	return fmt.Appendf(nil, `{"type":"insert","schema":"dids","data":"{\"id\":%d,\"user_id\":%d,\"number\":\"3125550001\"}"}`, record, account)
}

func hook(id string) http.Header {
	return http.Header{"Content-Type": {"application/json"}, "Webhook-Id": {id}, "Webhook-Signature": {"v1,x"}}
}

func TestCount_TellsWhatArrivedFromWhatShouldNotHave(t *testing.T) {
	one, two := "evt_00000000016B3748_1", "evt_00000000016B3749_1"
	type request struct {
		account string
		id      string
		body    []byte
	}
	for _, test := range []struct {
		name                    string
		requests                []request
		delivered, again, wrong int
		fault                   string
	}{
		{"nothing", nil, 0, 0, 0, ""},
		{"both", []request{{"7", one, did(10, 7)}, {"8", two, did(11, 8)}}, 2, 0, 0, ""},
		{"one of them twice", []request{{"7", one, did(10, 7)}, {"7", one, did(10, 7)}}, 1, 1, 0, ""},
		{"a record under two ids", []request{{"7", one, did(10, 7)}, {"7", two, did(10, 7)}}, 1, 0, 1, "second webhook-id"},
		{"two records under one id", []request{{"7", one, did(10, 7)}, {"8", one, did(11, 8)}}, 1, 0, 1, "share their webhook-id"},
		{"somebody else's", []request{{"8", one, did(10, 7)}}, 0, 0, 1, "of account 7 came to 8"},
		{"a record that was not committed", []request{{"7", one, did(12, 7)}}, 0, 0, 1, "not an event of this run"},
		{"one before the first", []request{{"7", one, did(9, 7)}}, 0, 0, 1, "not an event of this run"},
		{"an id of another form", []request{{"7", "evt_1", did(10, 7)}}, 0, 0, 1, "not an event of this run"},
		{"no body", []request{{"7", one, nil}}, 0, 0, 1, "not an event of this run"},
		{"half a body", []request{{"7", one, did(10, 7)[:60]}}, 0, 0, 1, "not an event of this run"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCount(expectation{First: 10, Count: 2, Copies: 1})
			for _, r := range test.requests {
				c.take(r.account, 0, hook(r.id), r.body)
			}
			got := c.tally(0)
			if got.Delivered != test.delivered || got.Again != test.again || got.Wrong != test.wrong || !strings.Contains(got.Fault, test.fault) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestCount_RefusesAnUnsignedRequest(t *testing.T) {
	c := newCount(expectation{First: 10, Count: 2, Copies: 1})
	header := hook("evt_00000000016B3748_1")
	header.Del("Webhook-Signature")
	if c.take("7", 0, header, did(10, 7)) || c.tally(0).Wrong != 1 {
		t.Errorf("%+v", c.tally(0))
	}
}

func TestCount_ExpectsARecordAtEachOfItsEndpointsUnderOneID(t *testing.T) {
	one, two := "evt_00000000016B3748_1", "evt_00000000016B3749_1"
	c := newCount(expectation{First: 10, Count: 2, Copies: 2})
	c.take("7", 0, hook(one), did(10, 7))
	c.take("7", 1, hook(one), did(10, 7))
	c.take("7", 1, hook(one), did(10, 7))
	c.take("8", 0, hook(two), did(11, 8))
	if got := c.tally(0); got.Delivered != 3 || got.Again != 1 || got.Wrong != 0 || got.Expected != 4 {
		t.Errorf("%+v", got)
	}
	c.take("8", 1, hook(one), did(11, 8))
	if got := c.tally(0); got.Wrong == 0 || !strings.Contains(got.Fault, "another webhook-id") {
		t.Errorf("another id at the second endpoint: %+v", got)
	}
	c = newCount(expectation{First: 10, Count: 2, Copies: 2})
	if c.take("7", 2, hook(one), did(10, 7)) || c.tally(0).Wrong != 1 {
		t.Error("an endpoint that the account does not have was accepted")
	}
}

// batchOf is a request with an array, as docs/RECEIVERS.md describes it.
func batchOf(list string, elements ...[]byte) (http.Header, []byte) {
	sum := sha256.Sum256([]byte(list))
	header := hook("batch_" + hex.EncodeToString(sum[:])[:32])
	header.Set("Webhook-Event-Ids", list)
	return header, fmt.Appendf(nil, "[%s]", bytes.Join(elements, []byte(",")))
}

func TestCount_CountsEachEventOfABatchOnce(t *testing.T) {
	one, two, three := "evt_00000000016B3748_1", "evt_00000000016B3749_1", "evt_00000000016B374A_1"
	type request struct {
		list     string
		elements [][]byte
	}
	for _, test := range []struct {
		name                    string
		requests                []request
		delivered, again, wrong int
		fault                   string
	}{
		{"two of them, then one", []request{{one + "," + two, [][]byte{did(10, 7), did(11, 7)}}, {three, [][]byte{did(12, 7)}}}, 3, 0, 0, ""},
		{"one of them in two batches", []request{{one + "," + two, [][]byte{did(10, 7), did(11, 7)}}, {one, [][]byte{did(10, 7)}}}, 2, 1, 0, ""},
		{"one of them twice in a batch", []request{{one + "," + one, [][]byte{did(10, 7), did(10, 7)}}}, 1, 1, 0, ""},
		{"the ids in another order", []request{{two + "," + one, [][]byte{did(10, 7), did(11, 7)}}, {one, [][]byte{did(10, 7)}}}, 2, 0, 1, "second webhook-id"},
		{"fewer elements than ids", []request{{one + "," + two, [][]byte{did(10, 7)}}}, 0, 0, 1, "2 ids, but 1 elements"},
		{"no elements", []request{{"", nil}}, 0, 0, 1, "not an event of this run"},
		{"too many", []request{{one + "," + two + "," + three, [][]byte{did(10, 7), did(11, 7), did(12, 7)}}}, 0, 0, 1, "a batch has 3 events"},
		{"somebody else's among them", []request{{one + "," + two, [][]byte{did(10, 7), did(11, 8)}}}, 1, 0, 1, "of account 8 came to 7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCount(expectation{First: 10, Count: 3, Copies: 1, Batch: 2})
			for _, r := range test.requests {
				header, body := batchOf(r.list, r.elements...)
				c.take("7", 0, header, body)
			}
			got := c.tally(0)
			if got.Delivered != test.delivered || got.Again != test.again || got.Wrong != test.wrong || !strings.Contains(got.Fault, test.fault) || got.Requests != len(test.requests) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestCount_RefusesABatchThatIsNone(t *testing.T) {
	list := "evt_00000000016B3748_1"
	for name, change := range map[string]func(header http.Header, body []byte) []byte{
		"no array":          func(_ http.Header, body []byte) []byte { return body[1 : len(body)-1] },
		"not closed":        func(_ http.Header, body []byte) []byte { return body[:len(body)-1] },
		"the event's id":    func(h http.Header, body []byte) []byte { h.Set("Webhook-Id", list); return body },
		"another list":      func(h http.Header, body []byte) []byte { h.Set("Webhook-Event-Ids", list+"0"); return body },
		"no list":           func(h http.Header, body []byte) []byte { h.Del("Webhook-Event-Ids"); return body },
		"without signature": func(h http.Header, body []byte) []byte { h.Del("Webhook-Signature"); return body },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCount(expectation{First: 10, Count: 1, Copies: 1, Batch: 2})
			header, body := batchOf(list, did(10, 7))
			if body = change(header, body); c.take("7", 0, header, body) || c.tally(0).Wrong != 1 {
				t.Errorf("%+v", c.tally(0))
			}
		})
	}
}
