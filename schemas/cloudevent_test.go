package schemas

import (
	"encoding/json"
	"testing"
)

// Two records have two subjects, whatever their keys hold.
func TestCloudEvent_SubjectsOfTwoRecordsDiffer(t *testing.T) {
	records := map[string]string{}
	for key, want := range map[string]string{
		"col\nx": "col%0Ax", "col%0Ax": "col%250Ax", "col%250Ax": "col%25250Ax", "a b/ü": "a b/ü", "\u007f": "%7F", "\ufdd0": "%EF%B7%90",
	} {
		e := CloudEvent{Schema: "dids", Record: "dids:" + key, Data: json.RawMessage("{}")}
		var got struct{ Subject string }
		if err := json.Unmarshal(e.Append(nil), &got); err != nil {
			t.Fatal(err)
		}
		if got.Subject != want || records[got.Subject] != "" {
			t.Errorf("the subject of %q is %q, want %q", key, got.Subject, want)
		}
		records[got.Subject] = key
	}
}
