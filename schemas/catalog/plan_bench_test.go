package catalog

import (
	"testing"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// BenchmarkAppendEnvelope renders a row of the carrier's catalog: numbers,
// texts, booleans and nulls, quoted once as values and once as a string.
func BenchmarkAppendEnvelope(b *testing.B) {
	relation := &schemas.Relation{OID: 1, Namespace: "public", Name: "dids", Identity: schemas.IdentityFull, PrimaryKey: []int{0}, Types: pgjson.NewTypes()}
	var row schemas.Tuple
	for _, c := range []struct {
		name string
		typ  uint32
		text string // "" for null
	}{
		{"id", 20, "123456"}, {"user_id", 20, "77"}, {"call_flow_id", 20, ""}, {"channel_group_id", 20, ""},
		{"voicemail_inbox_id", 20, "9"}, {"number", 25, "13125551212"}, {"number_type", 25, "local"}, {"state", 1042, "IL"},
		{"ratecenter", 25, `CHICAGO "ZONE" 1`}, {"sms_enabled", 16, "f"}, {"xmpp_enabled", 16, "t"}, {"inbound_cnam", 16, ""},
		{"wholesale_cost", 1700, "0.003500"}, {"created_at", 1184, "2026-01-02 03:04:05.678901+00"},
	} {
		relation.Columns = append(relation.Columns, schemas.Column{Name: c.name, Type: c.typ})
		value := schemas.Value{State: schemas.Text, Text: []byte(c.text)}
		if c.text == "" {
			value = schemas.Value{State: schemas.Null}
		}
		row = append(row, value)
	}
	plan := Carrier().Bind(relation)
	var body, scratch []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if body, scratch, err = plan.AppendEnvelope(body[:0], scratch, schemas.Insert, row, false); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(body)))
}
