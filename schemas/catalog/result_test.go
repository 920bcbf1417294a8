package catalog

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestResult_EnvelopeIsFlat(t *testing.T) {
	for _, c := range []struct{ name, message, want string }{
		{"already provisioned", `{"user_id":7,"schema":"sms_enablement","type":"update","status":"error","verbose":"already provisioned"}`,
			`{"type":"update","schema":"sms_enablement","status":"error","verbose":"already provisioned"}`},
		{"not 10 digits", `{"user_id":7,"schema":"sms_enablement","type":"update","status":"error","verbose":"not 10 digits"}`,
			`{"type":"update","schema":"sms_enablement","status":"error","verbose":"not 10 digits"}`},
		{"nothing to say", `{"user_id":"7","schema":"sms_enablement","type":"update","status":"error"}`,
			`{"type":"update","schema":"sms_enablement","status":"error","verbose":""}`},
		{"text is escaped, HTML is not", `{"user_id":7,"schema":"x","type":"update","status":"ok","verbose":"a\"b\\<é>\n"}`,
			`{"type":"update","schema":"x","status":"ok","verbose":"a\"b\\<é>\n"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseResultMessage([]byte(c.message))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(r.AppendEnvelope(nil)); got != c.want || r.Account != "7" {
				t.Errorf("account %s\n got %s\nwant %s", r.Account, got, c.want)
			}
		})
	}
}

func TestParseResultMessage_RefusesWhatIsMalformed(t *testing.T) {
	for name, message := range map[string]string{
		"empty":              ``,
		"not JSON":           `{"user_id":7`,
		"an array":           `[1]`,
		"null":               `null`,
		"no account":         `{"schema":"s","type":"update","status":"ok"}`,
		"account null":       `{"user_id":null,"schema":"s","type":"update","status":"ok"}`,
		"account an object":  `{"user_id":{},"schema":"s","type":"update","status":"ok"}`,
		"no schema":          `{"user_id":7,"type":"update","status":"ok"}`,
		"schema with quotes": `{"user_id":7,"schema":"a\"b","type":"update","status":"ok"}`,
		"no type":            `{"user_id":7,"schema":"s","status":"ok"}`,
		"no status":          `{"user_id":7,"schema":"s","type":"update"}`,
		"status a number":    `{"user_id":7,"schema":"s","type":"update","status":1}`,
		"too long":           `{"user_id":7,"schema":"s","type":"update","status":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ParseResultMessage([]byte(message))
			if err == nil {
				t.Fatalf("accepted as %+v", r)
			}
			if strings.Contains(err.Error(), "xxxx") {
				t.Errorf("the error quotes the content: %v", err)
			}
		})
	}
}

func FuzzParseResultMessage(f *testing.F) {
	f.Add([]byte(`{"user_id":7,"schema":"sms_enablement","type":"update","status":"error","verbose":"x"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		r, err := ParseResultMessage(content)
		if err == nil && !json.Valid(r.AppendEnvelope(nil)) {
			t.Errorf("%q becomes %s", content, r.AppendEnvelope(nil))
		}
	})
}
