package pgjson_test

import (
	"encoding/json"
	"strings"
	"testing"

	"walhook/schemas/pgjson"
)

func TestAppendString_EscapesAsPostgresDoes(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":               {"", `""`},
		"plain":               {"3125551212", `"3125551212"`},
		"quote and backslash": {`a"b\c`, `"a\"b\\c"`},
		"named controls":      {"\b\f\n\r\t", `"\b\f\n\r\t"`},
		"other controls":      {"\x01\x0b\x1f", `"\u0001\u000b\u001f"`},
		"DEL stays":           {"\x7f", "\"\x7f\""},
		"HTML stays":          {"</a> & 'b'", `"</a> & 'b'"`},
		"non-ASCII stays":     {"é \u2028 😀", "\"é \u2028 😀\""},
		"escape at both ends": {"\nab\n", `"\nab\n"`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pgjson.AppendString(nil, []byte(test.text)); string(got) != test.want {
				t.Errorf("AppendString(%q) = %s, want %s", test.text, got, test.want)
			}
			got := pgjson.AppendEscaped([]byte("before"), []byte(test.text))
			if want := "before" + test.want[1:len(test.want)-1]; string(got) != want {
				t.Errorf("AppendEscaped(%q) = %s, want %s", test.text, got, want)
			}
		})
	}
}

func TestAppendString_IsReadBackByAnyDecoder(t *testing.T) {
	for c := range 0x80 {
		text := "a" + string(rune(c)) + "b"
		var back string
		quoted := pgjson.AppendString(nil, []byte(text))
		if err := json.Unmarshal(quoted, &back); err != nil || back != text {
			t.Errorf("character %#x: %s is read back as %q, %v", c, quoted, back, err)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"b\\c\n\x00é")
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "")
		var back string
		quoted := pgjson.AppendString(nil, []byte(text))
		if err := json.Unmarshal(quoted, &back); err != nil || back != text {
			t.Errorf("%q is read back as %q, %v", text, back, err)
		}
	})
}

func BenchmarkAppendEscaped(b *testing.B) {
	inner := []byte(`{"id":42,"user_id":7,"number":"3125551212","state":"IL","ratecenter":"CHICAGO","sms_enabled":true}`)
	for name, text := range map[string][]byte{
		"record": inner,
		"prose":  []byte(strings.Repeat("the quick brown fox jumps over the lazy dog ", 20)),
	} {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, 4096)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				dst = pgjson.AppendEscaped(dst[:0], text)
			}
		})
	}
}
