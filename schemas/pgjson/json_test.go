package pgjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"walhook/schemas/pgjson"
)

// OIDs of built-in types and of types that the tests add.
const (
	oidBool        = 16
	oidChar        = 18
	oidInt2Vector  = 22
	oidInt4        = 23
	oidText        = 25
	oidOIDVector   = 30
	oidJSON        = 114
	oidFloat8      = 701
	oidInt2VectorA = 1006
	oidInt4A       = 1007
	oidTextA       = 1009
	oidBoxA        = 1020
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestampTZ = 1184
	oidNumeric     = 1700
	oidUUID        = 2950
	oidJSONB       = 3802

	oidPair      = 20000 + iota // (n integer, s text)
	oidPairA                    // pair[]
	oidOuter                    // ("the pair" pair, list integer[], pairs pair[])
	oidNothing                  // ()
	oidSingle                   // (a integer)
	oidPositive                 // a domain over integer
	oidPercent                  // a domain over the domain
	oidIntList                  // a domain over integer[]
	oidIntListA                 // its arrays
	oidHstore                   //
	oidHstoreA                  // hstore[]
	oidCircular                 // a domain over itself, which no server has
	oidHalfKnown                // a composite with a type that is not registered
	oidCast                     // a type with a cast to json
	oidNoSuch                   // never registered
)

func testTypes() *pgjson.Types {
	types := pgjson.NewTypes()
	types.Add(
		pgjson.Type{OID: oidPair, Name: "pair", Kind: pgjson.TypeComposite, Attributes: []pgjson.Attribute{{Name: "n", Type: oidInt4}, {Name: "s", Type: oidText}}},
		pgjson.Type{OID: oidPairA, Name: "pair[]", Kind: pgjson.TypeArray, Elem: oidPair},
		pgjson.Type{OID: oidOuter, Name: "outer_type", Kind: pgjson.TypeComposite, Attributes: []pgjson.Attribute{
			{Name: `the "pair"`, Type: oidPair}, {Name: "list", Type: oidInt4A}, {Name: "pairs", Type: oidPairA}}},
		pgjson.Type{OID: oidNothing, Name: "nothing", Kind: pgjson.TypeComposite},
		pgjson.Type{OID: oidSingle, Name: "single", Kind: pgjson.TypeComposite, Attributes: []pgjson.Attribute{{Name: "a", Type: oidInt4}}},
		pgjson.Type{OID: oidPositive, Name: "positive", Kind: pgjson.TypeDomain, Base: oidInt4},
		pgjson.Type{OID: oidPercent, Name: "percent", Kind: pgjson.TypeDomain, Base: oidPositive},
		pgjson.Type{OID: oidIntList, Name: "int_list", Kind: pgjson.TypeDomain, Base: oidInt4A},
		pgjson.Type{OID: oidIntListA, Name: "int_list[]", Kind: pgjson.TypeArray, Elem: oidIntList},
		pgjson.Type{OID: oidHstore, Name: "hstore", Kind: pgjson.TypeHstore},
		pgjson.Type{OID: oidHstoreA, Name: "hstore[]", Kind: pgjson.TypeArray, Elem: oidHstore},
		pgjson.Type{OID: oidCircular, Name: "circular", Kind: pgjson.TypeDomain, Base: oidCircular},
		pgjson.Type{OID: oidHalfKnown, Name: "half_known", Kind: pgjson.TypeComposite, Attributes: []pgjson.Attribute{{Name: "a", Type: oidInt4}, {Name: "b", Type: oidNoSuch}}},
		pgjson.Type{OID: oidCast, Name: "with_cast"},
	)
	return types
}

func TestAppendJSON_WritesScalars(t *testing.T) {
	types := testTypes()
	for name, test := range map[string]struct {
		oid        uint32
		text, want string
	}{
		"integer":                     {oidInt4, "-42", `-42`},
		"numeric keeps its zeros":     {oidNumeric, "123456789012345678901234567890.10", `123456789012345678901234567890.10`},
		"numeric NaN":                 {oidNumeric, "NaN", `"NaN"`},
		"float with exponent":         {oidFloat8, "1e+300", `1e+300`},
		"float minus infinity":        {oidFloat8, "-Infinity", `"-Infinity"`},
		"float minus zero":            {oidFloat8, "-0", `-0`},
		"true":                        {oidBool, "t", `true`},
		"false":                       {oidBool, "f", `false`},
		"text":                        {oidText, "a\"b\n", `"a\"b\n"`},
		"empty text":                  {oidText, "", `""`},
		"uuid":                        {oidUUID, "7f0c1f0e-0000-4000-8000-000000000001", `"7f0c1f0e-0000-4000-8000-000000000001"`},
		"json verbatim":               {oidJSON, "{ \"a\" :\n1.50 }", "{ \"a\" :\n1.50 }"},
		"jsonb":                       {oidJSONB, `{"a": 1.50}`, `{"a": 1.50}`},
		"date":                        {oidDate, "2024-02-29", `"2024-02-29"`},
		"date before Christ":          {oidDate, "0044-03-15 BC", `"0044-03-15 BC"`},
		"date infinity":               {oidDate, "infinity", `"infinity"`},
		"timestamp":                   {oidTimestamp, "2024-02-29 12:34:56.789", `"2024-02-29T12:34:56.789"`},
		"timestamp of a far year":     {oidTimestamp, "294276-12-31 23:59:59.999999", `"294276-12-31T23:59:59.999999"`},
		"timestamp minus infinity":    {oidTimestamp, "-infinity", `"-infinity"`},
		"timestamptz":                 {oidTimestampTZ, "2024-02-29 12:34:56+00", `"2024-02-29T12:34:56+00:00"`},
		"timestamptz before Christ":   {oidTimestampTZ, "0044-03-15 12:00:00+00 BC", `"0044-03-15T12:00:00+00:00 BC"`},
		"char":                        {oidChar, "a", `"a"`},
		"char zero":                   {oidChar, "", `""`},
		"char with the eighth bit":    {oidChar, "\xff", `"\\377"`},
		"domain over a domain":        {oidPercent, "50", `50`},
		"a type that nobody knows":    {oidNoSuch, `a"b`, `"a\"b"`},
		"a type with a cast to json":  {oidCast, `a"b`, `"a\"b"`},
		"hstore":                      {oidHstore, `"a"=>"1", "b"=>NULL, "q\"\\"=>"x, y"`, `{"a": "1", "b": null, "q\"\\": "x, y"}`},
		"empty hstore":                {oidHstore, ``, `{}`},
		"int2vector":                  {oidInt2Vector, "1 -2 3", `[1,-2,3]`},
		"empty int2vector":            {oidInt2Vector, "", `[]`},
		"oidvector holds oid strings": {oidOIDVector, "26 25", `["26","25"]`},
	} {
		t.Run(name, func(t *testing.T) { wantJSON(t, types, test.oid, test.text, test.want) })
	}
}

func wantJSON(t *testing.T, types *pgjson.Types, oid uint32, text, want string) {
	t.Helper()
	got, err := types.AppendJSON([]byte("before"), oid, []byte(text))
	if err != nil || string(got) != "before"+want {
		t.Errorf("AppendJSON(%q) = %s, %v, want %s", text, got, err, "before"+want)
	}
}

func TestAppendJSON_RefusesMalformedText(t *testing.T) {
	types := testTypes()
	for name, test := range map[string]struct {
		oid    uint32
		text   string
		offset int
	}{
		"empty integer":            {oidInt4, "", 0},
		"integer with junk":        {oidInt4, "12x", 2},
		"number with a plus":       {oidInt4, "+1", 0},
		"number with a lead zero":  {oidNumeric, "01", 1},
		"number without fraction":  {oidNumeric, "1.", 1},
		"number without exponent":  {oidFloat8, "1e+", 1},
		"bool in words":            {oidBool, "true", 0},
		"text in Latin-1":          {oidText, "caf\xe9", 3},
		"json in Latin-1":          {oidJSON, "\"\xe9\"", 1},
		"empty json":               {oidJSON, "", 0},
		"German date":              {oidDate, "29.02.2024", 2},
		"date with junk":           {oidDate, "2024-02-29x", 10},
		"date cut off":             {oidDate, "2024-02", 7},
		"timestamp without a time": {oidTimestamp, "2024-02-29", 10},
		"timestamp cut off":        {oidTimestamp, "2024-02-29 12:34", 16},
		"timestamp with a zone":    {oidTimestamp, "2024-02-29 12:34:56+00", 19},
		"timestamptz elsewhere":    {oidTimestampTZ, "2024-02-29 12:34:56+05:30", 19},
		"timestamptz near UTC":     {oidTimestampTZ, "1847-12-01 00:00:00+00:01:15", 19},
		"timestamptz without zone": {oidTimestampTZ, "2024-02-29 12:34:56", 19},
		"hstore without arrow":     {oidHstore, `"a" "b"`, 3},
		"hstore unclosed":          {oidHstore, `"a"=>"b`, 5},
		"hstore without comma":     {oidHstore, `"a"=>"b" "c"=>NULL`, 8},
		"int2vector trailing":      {oidInt2Vector, "1 2 ", 3},
		"int2vector doubled space": {oidInt2Vector, "1  2", 2},
		"domain in a circle":       {oidCircular, "1", 0},

		"array empty text":         {oidInt4A, "", 0},
		"array unclosed":           {oidInt4A, "{1,2", 4},
		"array closed twice":       {oidInt4A, "{1}}", 3},
		"array with junk after":    {oidInt4A, "{1}x", 3},
		"array empty element":      {oidInt4A, "{1,}", 3},
		"array unclosed quote":     {oidTextA, `{"a`, 1},
		"array ends in backslash":  {oidTextA, `{"a\`, 1},
		"array junk after quote":   {oidTextA, `{"a"b}`, 4},
		"array quote inside":       {oidTextA, `{a"b"}`, 2},
		"array ragged depth":       {oidInt4A, "{1,{2}}", 3},
		"array ragged length":      {oidInt4A, "{{1,2},{3}}", 9},
		"array empty inside":       {oidInt4A, "{{}}", 2},
		"array of 7 dimensions":    {oidInt4A, "{{{{{{{1}}}}}}}", 6},
		"array wrong delimiter":    {oidBoxA, "{(1,1),(0,0),(2,2),(3,3)}x", 25},
		"array bad bounds":         {oidInt4A, "[1:2]x={1,2}", 5},
		"array bounds only":        {oidInt4A, "[1:2]", 5},
		"array bad element":        {oidInt4A, "{1,2,x}", 5},
		"array bad quoted element": {oidInt4A, `{1,"2x"}`, 5},

		"composite empty":           {oidPair, "", 0},
		"composite unclosed":        {oidPair, "(1,a", 0},
		"composite too few":         {oidPair, "(1)", 2},
		"composite too many":        {oidPair, "(1,a,b)", 4},
		"composite of none":         {oidNothing, "(1)", 1},
		"composite unclosed quote":  {oidPair, `(1,"a)`, 3},
		"composite junk after":      {oidPair, `(1,"a"b)`, 6},
		"composite quote inside":    {oidPair, `(1,a"b")`, 4},
		"composite bad field":       {oidPair, `(x,a)`, 1},
		"element with escapes":      {oidPairA, `{"(x,\"a b\")"}`, 2},
		"element without escapes":   {oidPairA, `{"(1,a)","(1x,a)"}`, 12},
		"inner array of a quoted":   {oidOuter, `("(1,a)","{1,x}",)`, 13},
		"invalid UTF-8 in the text": {oidPair, "(1,\xff)", 3},
	} {
		t.Run(name, func(t *testing.T) {
			dst, err := types.AppendJSON([]byte("before"), test.oid, []byte(test.text))
			if string(dst) != "before" {
				t.Errorf("dst came back as %q", dst)
			}
			fault, ok := errors.AsType[*pgjson.ValueError](err)
			if !ok {
				t.Fatalf("AppendJSON(%q) = %v, want a ValueError", test.text, err)
			}
			if fault.Offset != test.offset || fault.Type != types.Name(test.oid) {
				t.Errorf("AppendJSON(%q): %v, want %s at byte %d", test.text, err, types.Name(test.oid), test.offset)
			}
		})
	}
}

func TestAppendJSON_TellsThatACompositeWasAltered(t *testing.T) {
	types := testTypes()
	for _, text := range []string{"()", "(1)", "(1,a,)", `(1,"a",b)`} {
		if _, err := types.AppendJSON(nil, oidPair, []byte(text)); !errors.Is(err, pgjson.ErrAttributes) {
			t.Errorf("AppendJSON(%q) = %v, want ErrAttributes", text, err)
		}
	}
	if _, err := types.AppendJSON(nil, oidPairA, []byte(`{"(1,a)","(1,a,b)"}`)); !errors.Is(err, pgjson.ErrAttributes) {
		t.Errorf("in an array: %v, want ErrAttributes", err)
	}
	if _, err := types.AppendJSON(nil, oidPair, []byte(`(1,"a)`)); err == nil || errors.Is(err, pgjson.ErrAttributes) {
		t.Errorf("an unclosed quote is %v", err)
	}
}

func TestValueError_HoldsNothingOfTheValue(t *testing.T) {
	_, err := testTypes().AppendJSON(nil, oidPairA, []byte(`{"(s3cret,a)"}`))
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error is %v", err)
	}
	if want := "value of type pair[]: at byte 3: not a number"; err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
}

// benchmarkValues are the types of most columns, and the dear ones.
var benchmarkValues = map[string]struct {
	oid  uint32
	text string
}{
	"integer":     {oidInt4, "3125551"},
	"numeric":     {oidNumeric, "1234567.8900"},
	"bool":        {oidBool, "t"},
	"text":        {oidText, "233 South Wacker Drive, Suite 8400"},
	"timestamptz": {oidTimestampTZ, "2024-02-29 12:34:56.789012+00"},
	"jsonb":       {oidJSONB, `{"steps": [{"kind": "menu", "digits": 1}, {"kind": "dial", "to": "3125551212"}]}`},
	"text array":  {oidTextA, `{voice,"sms and mms",NULL,"a \"quoted\" word"}`},
	"composite":   {oidOuter, `("(1,""a b"")","{1,2,3}","{""(1,a)"",""(2,\\""b c\\"")""}")`},
}

func TestAppendJSON_DoesNotAllocate(t *testing.T) {
	types := testTypes()
	dst := make([]byte, 0, 1024)
	for name, value := range benchmarkValues {
		text := []byte(value.text)
		if allocs := testing.AllocsPerRun(100, func() { dst, _ = types.AppendJSON(dst[:0], value.oid, text) }); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	types := testTypes()
	for name, value := range benchmarkValues {
		b.Run(name, func(b *testing.B) {
			text, dst := []byte(value.text), make([]byte, 0, 1024)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = types.AppendJSON(dst[:0], value.oid, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

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
