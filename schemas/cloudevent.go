package schemas

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// CloudEventSource is the attribute source of all events. With the id, which holds the
// number of the webhook, it names an event among all of an installation.
const CloudEventSource = "urn:walhook"

// CloudEvent is an event in the structured form of CloudEvents 1.0 (JSON Event Format,
// 3.2). Its specversion is 1.0 and its data application/json.
type CloudEvent struct {
	ID           string // the webhook-id
	Schema, Type string // together the attribute type: walhook.dids.update
	// Record is the record of the event log. Its subject is the key, of a record of the
	// schema, and otherwise the whole: event/… or object/dids:42.
	Record string
	Time   time.Time
	Data   json.RawMessage
	// Custom is an object that becomes the extension attribute customdata, as text: an
	// extension attribute holds no object (CloudEvents 1.0.2, 3.1). nil for none.
	Custom []byte
}

// Append appends the event without white space between its tokens.
func (e *CloudEvent) Append(dst []byte) []byte {
	var kind strings.Builder
	kind.WriteString("walhook")
	for _, part := range []string{e.Schema, e.Type} {
		if part != "" {
			kind.WriteString("." + part)
		}
	}
	members := []Member{
		StringMember("specversion", []byte("1.0")),
		attribute("id", e.ID),
		attribute("source", CloudEventSource),
		attribute("type", kind.String()),
	}
	if subject := strings.TrimPrefix(e.Record, e.Schema+":"); subject != "" {
		members = append(members, attribute("subject", subject))
	}
	members = append(members,
		StringMember("time", []byte(e.Time.UTC().Format(time.RFC3339Nano))),
		StringMember("datacontenttype", []byte("application/json")))
	if e.Custom != nil {
		members = append(members, StringMember("customdata", e.Custom))
	}
	return AppendObject(dst, append(members, Member{Name: "data", Value: e.Data}))
}

// attribute percent-encodes the characters that no attribute may hold: control
// characters and Unicode's noncharacters (CloudEvents 1.0.2, 3.1), as bytes of UTF-8; and
// the percent sign, so that no two values become one.
func attribute(name, value string) Member {
	var b strings.Builder
	for _, r := range value {
		if r == '%' || unicode.IsControl(r) || unicode.Is(unicode.Noncharacter_Code_Point, r) {
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
			continue
		}
		b.WriteRune(r)
	}
	return StringMember(name, []byte(b.String()))
}
