package catalog

import (
	"encoding/json"
	"strings"
	"time"

	"walhook/schemas/pgjson"
)

// The account, the webhook-ids, the key and the commit of all examples.
const (
	exampleAccount   = "7"
	exampleWebhookID = "evt_0000000001A2B3C8_12"
	exampleSecondID  = "evt_0000000001A2B3C8_13" // of another event, in a batch
	exampleTestID    = "test_KZ4X6SVA2Q7ORMPJ3CW5D7ETHY"
	exampleKey       = "42"
	exampleUnnamed   = "0/1A2B3C8#12" // the order of an event that has none of its own
)

var exampleTime = time.Date(2026, time.March, 9, 14, 30, 0, 0, time.UTC)

// exampleTexts are values by what a field's name ends with, in lower case and without
// _: the first one counts. The catalog does not know the types of columns.
var exampleTexts = []struct{ end, value string }{
	{"email", "pat@example.com"}, {"emailaddress", "pat@example.com"},
	{"extnumber", "101"}, {"extensionnumber", "101"}, {"rgnumber", "600"}, {"queuenumber", "700"}, {"slot", "701"},
	{"inboxnumber", "101"}, {"accountnumber", "4711"}, {"servicenumber", "4711"}, {"ponnumber", "PON-4711"}, {"unitnumber", "2"},
	{"inboxname", "Reception"}, {"extname", "Pat Smith"}, {"extensionname", "Pat Smith"}, {"cidname", "Pat Smith"}, {"idname", "Pat Smith"},
	{"firstname", "Pat"}, {"lastname", "Smith"}, {"fullname", "Pat Smith"}, {"username", "pat"}, {"contact", "Pat Smith"},
	{"zip", "60601"}, {"ipaddress", "203.0.113.7"}, {"ip", "203.0.113.7"}, {"address", "100 Main St"}, {"address1", "100 Main St"}, {"address2", "Suite 2"},
	{"city", "Chicago"}, {"state", "IL"}, {"ratecenter", "CHICAGO"}, {"country", "US"},
	{"link", "https://example.com/"}, {"url", "https://example.com/hook"}, {"domain", "example.com"}, {"realm", "example.com"},
	{"forwardto", "3125559876"}, {"request", "sip:3125551212@example.com"}, {"to", "3125551212@example.com"}, {"from", "3125559876@example.com"},
	{"tonumber", "3125551212"}, {"fromnumber", "3125559876"}, {"numberdialed", "3125551212"}, {"number", "3125551212"}, {"idnum", "3125559876"},
	{"phone", "3125551212"}, {"btn", "3125551212"}, {"recipient", "3125551212"}, {"callerid", "3125551212"}, {"sourcedid", "3125559876"}, {"destinationdid", "3125551212"},
	{"direction", "inbound"}, {"status", "active"}, {"date", "2026-03-09"}, {"dt", "2026-03-09"}, {"edat", "2026-03-09T14:30:00+00:00"},
	{"text", "Hello"}, {"note", "Call before noon"}, {"messagetext", "Hello"}, {"cause", "NORMAL_CLEARING"}, {"code", "200"},
	{"pin", "1234"}, {"data", "{}"}, {"name", "Main office"},
}

// exampleNumbers are what columns hold whose names end so, and exampleFlags are true.
var (
	exampleNumbers = []struct{ end, value string }{
		{"price", "12.50"}, {"total", "12.50"}, {"mrc", "9.99"}, {"creditline", "500.00"}, {"maxinternational", "0.50"},
		{"pages", "2"}, {"count", "1"}, {"channels", "10"}, {"length", "35"}, {"assigned", "3"}, {"dayofmonth", "1"}, {"chanlimitinbound", "10"}, {"chanlimitoutbound", "10"},
	}
	exampleFlags = []string{"enabled", "transcribe", "usingcustomcss", "usingcustomlogo", "partialport", "dynamic"}
)

// isKey reports whether a column of this name is likely to hold a record's key.
func isKey(name string) bool {
	return name == "id" || name != "caller_id" && (strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "Id") || strings.HasSuffix(name, "ID"))
}

func bareName(field string) string {
	return strings.ToLower(strings.ReplaceAll(field, "_", ""))
}

// exampleColumn is a JSON value that a column of this name may hold.
func exampleColumn(name string) json.RawMessage {
	if isKey(name) {
		return json.RawMessage("42")
	}
	plain := bareName(name)
	for _, flag := range exampleFlags {
		if strings.HasSuffix(plain, flag) {
			return json.RawMessage("true")
		}
	}
	for _, number := range exampleNumbers {
		if strings.HasSuffix(plain, number.end) {
			return json.RawMessage(number.value)
		}
	}
	return pgjson.AppendString(nil, []byte(exampleText(name)))
}

// exampleText is a text that a field of this name may hold.
func exampleText(name string) string {
	plain := bareName(name)
	for _, text := range exampleTexts {
		if strings.HasSuffix(plain, text.end) {
			return text.value
		}
	}
	if strings.HasSuffix(plain, "id") {
		return "a1b2c3d4"
	}
	return "example"
}
