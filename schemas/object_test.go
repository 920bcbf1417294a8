package schemas

import (
	"encoding/json"
	"net/url"
	"testing"
)

func TestParseObject_KeepsOrderAndEveryDigit(t *testing.T) {
	const text = `{"b":1.50,"a":{"z": 1,"y":[1e400]},"":"ü\u0000\"","n":null,"b":12345678901234567890.10}`
	members, err := ParseObject([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"b":12345678901234567890.10,"a":{"z": 1,"y":[1e400]},"":"ü\u0000\"","n":null}`
	if got := string(AppendObject(nil, members)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseObject_RefusesWhatIsNoObject(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "text": `"x"`, "array": "[1]", "null": "null", "broken": `{"a":1`, "no value": `{"a"}`, "two": `{"a":1}{"b":2}`,
		"more": `{"a":1} x`, "comma": `{"a":1,}`, "no UTF-8": "{\"a\":\"\xff\"}", "control": "{\"a\":\"\n\"}",
	} {
		if _, err := ParseObject([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestAppendForm(t *testing.T) {
	for _, test := range []struct{ name, object, want string }{
		{"order", `{"b":"1","a":"2"}`, "b=1&a=2"},
		{"kinds", `{"t":true,"n":1.50,"z":null,"o":{"a": [1]},"e":""}`, "t=true&n=1.50&z=&o=%7B%22a%22%3A+%5B1%5D%7D&e="},
		{"what stays", `{"k":"AZaz09*-._"}`, "k=AZaz09*-._"},
		{"what does not", `{"k":"a b+c&d=e%f~/@:,;ü€"}`, "k=a+b%2Bc%26d%3De%25f%7E%2F%40%3A%2C%3B%C3%BC%E2%82%AC"},
		{"line breaks", `{"k":"a\r\nb\u0000"}`, "k=a%0D%0Ab%00"},
		{"names", `{"a b&":"1"}`, "a+b%26=1"},
		{"nothing", `{}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			members, err := ParseObject([]byte(test.object))
			if err != nil {
				t.Fatal(err)
			}
			got, err := AppendForm(nil, members)
			if err != nil || string(got) != test.want {
				t.Errorf("got  %s (%v)\nwant %s", got, err, test.want)
			}
		})
	}
}

// What a form's reader makes of it is what went in.
func FuzzAppendForm(f *testing.F) {
	f.Add("name", "value & more = ü")
	f.Fuzz(func(t *testing.T, name, value string) {
		text, err := json.Marshal(map[string]string{name: value})
		if err != nil {
			t.Skip()
		}
		var back map[string]string
		if json.Unmarshal(text, &back) != nil {
			t.Skip()
		}
		members, err := ParseObject(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		form, err := AppendForm(nil, members)
		if err != nil {
			t.Fatal(err)
		}
		values, err := url.ParseQuery(string(form))
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		for name, value := range back {
			if values.Get(name) != value {
				t.Errorf("%q came back as %q", value, values.Get(name))
			}
		}
	})
}
