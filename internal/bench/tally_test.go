package bench

import (
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
