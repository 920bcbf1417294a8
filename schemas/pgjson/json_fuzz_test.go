package pgjson_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"walhook/schemas/pgjson"
)

// FuzzAppendJSON holds AppendJSON to this: whatever the text, it does not
// panic, leaves dst alone on an error, and otherwise appends valid JSON.
func FuzzAppendJSON(f *testing.F) {
	types := testTypes()
	oids := []uint32{
		oidBool, oidChar, oidInt2Vector, oidInt4, oidText, oidOIDVector, oidFloat8, oidInt2VectorA, oidInt4A, oidTextA,
		oidBoxA, oidDate, oidTimestamp, oidTimestampTZ, oidNumeric, oidPair, oidPairA, oidOuter, oidNothing, oidSingle,
		oidPercent, oidIntListA, oidHstore, oidHstoreA, oidCircular, oidHalfKnown, oidNoSuch,
	}
	for i, text := range []string{
		`t`, `a`, `1 2`, `-1`, "a\"\n", `1 2`, `1e+300`, `{"1 2",3}`, `[2:3]={7,NULL}`, `{{"a\"b","c\\d"},{é,NULL}}`,
		`{(1,1),(0,0);(3,3),(2,2)}`, `0044-03-15 BC`, `2024-02-29 12:34:56.789`, `2024-02-29 12:34:56+00 BC`, `NaN`,
		`(1,"a ""b""")`, `{"(1,a)",NULL,"(,\"b \"\"c\")"}`, `("(1,""a """"b"""""")","{1,NULL}","{""(2,c)"",NULL}")`,
		`()`, `()`, `50`, `{"{1,2}","{3}"}`, `"a"=>"1", "b"=>NULL`, `{"\"a\"=>\"1\"",""}`, `1`, `(1,a)`, `x`,
	} {
		f.Add(uint8(i), []byte(text))
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		oid := oids[int(which)%len(oids)]
		dst, err := types.AppendJSON([]byte("before"), oid, text)
		if string(dst[:6]) != "before" || err != nil && len(dst) != 6 {
			t.Fatalf("dst came back as %q with %v", dst, err)
		}
		if err != nil {
			if fault := err.(*pgjson.ValueError); fault.Offset < 0 || fault.Offset > len(text) || fault.Type == "" {
				t.Fatalf("fault %+v in a text of %d bytes", fault, len(text))
			}
			return
		}
		if !json.Valid(dst[6:]) || !utf8.Valid(dst) {
			t.Fatalf("OID %d: %q becomes %q", oid, text, dst[6:])
		}
	})
}
