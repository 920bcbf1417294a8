package catalog

import (
	"cmp"

	"walhook/schemas"
)

// Sample is an event with made-up values, as the event log would hold it.
type Sample struct {
	Schema, Type, Record string
	// Format is that of the body of an event that is not of the record feed; "" for one of it.
	Format string
	Body   []byte
}

// Sample is the example of an event. Of a record it is a change of a type, insert, update
// or delete; of everything else typ is "". An event with several forms has the first. ok is
// false where there is no such change.
func (t *EventType) Sample(typ string) (s Sample, ok bool) {
	if len(t.Examples) == 0 {
		return s, false
	}
	x := &t.Examples[0]
	s = Sample{Schema: x.EventSchema, Type: x.EventType, Record: x.Record, Body: x.Envelope}
	switch t.Kind {
	case KindRecord:
		switch typ {
		case "", schemas.Insert.String(), schemas.Update.String(), schemas.Delete.String():
		default:
			return Sample{}, false
		}
		s.Type = cmp.Or(typ, s.Type)
		members, err := schemas.ParseObject(s.Body)
		if err != nil {
			return Sample{}, false // an object that we wrote
		}
		s.Body = schemas.AppendObject(nil, schemas.SetMember(members, schemas.StringMember("type", []byte(s.Type))))
	case KindResult:
		return s, typ == "" || typ == s.Type
	default:
		s.Format, s.Body = cmp.Or(t.Format, "json"), x.JSON
		return s, typ == ""
	}
	return s, true
}
