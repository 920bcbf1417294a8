package pgjson_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// generator makes random values of a type as SQL expressions.
type generator struct {
	typ   string
	from  string // type of the expressions, where it is not typ itself
	value func(*rand.Rand) string
}

func (g generator) elementType() string {
	if g.from != "" {
		return g.from
	}
	return g.typ
}

var userGenerators = []generator{
	{typ: "text", value: randomText},
	{typ: "bool", value: randomBool},
	{typ: "numeric", value: randomNumeric},
	{typ: "float4", value: randomFloat32},
	{typ: "float8", value: randomFloat64},
	{typ: "int8", value: randomInt},
	{typ: "date", value: randomDate},
	{typ: "timestamp", value: randomTimestamp},
	{typ: "timestamptz", value: randomTimestampTZ},
	{typ: "interval", value: randomInterval},
	{typ: "bytea", value: randomBytes},
	{typ: "json", value: randomJSON},
	{typ: "jsonb", value: randomJSON},
	{typ: "mood", value: randomMood},
	{typ: "percent", value: randomPercent},
	{typ: "good_pair", value: randomPair},
	{typ: "stretch", value: randomStretch},
	{typ: "stretch_multirange", value: func(r *rand.Rand) string { return "stretch_multirange(" + randomStretch(r) + ")" }},
	{typ: "word_range", value: randomWordRange},
	{typ: "everything", value: randomEverything},
	{typ: "legacy", value: randomLegacy},
	{typ: "all_of_it", value: randomEverything},
	{typ: "tags", from: "pg_catalog.text", value: func(r *rand.Rand) string { return randomArray("text", randomText)(r) + "::text" }},
	{typ: "text[]", from: "pg_catalog.text", value: func(r *rand.Rand) string { return randomArray("text", randomText)(r) + "::text" }},
	{typ: "frame[]", from: "pg_catalog.text", value: func(r *rand.Rand) string { return randomArray("frame", randomBox)(r) + "::text" }},
	{typ: "frames[]", from: "pg_catalog.text", value: func(r *rand.Rand) string { return randomArray("frames", randomFrames)(r) + "::text" }},
	{typ: "percent[]", from: "pg_catalog.text", value: func(r *rand.Rand) string { return randomArray("percent", randomPercent)(r) + "::text" }},
	{typ: "everything[]", from: "pg_catalog.text", value: func(r *rand.Rand) string { return randomArray("everything", randomEverything)(r) + "::text" }},
}

var extensionGenerators = map[string][]generator{
	"hstore": {
		{typ: "hstore", value: randomHstore},
		{typ: "hstore[]", from: "pg_catalog.text", value: func(r *rand.Rand) string { return randomArray("hstore", randomHstore)(r) + "::text" }},
	},
	"citext": {{typ: "citext", value: randomText}},
	"ltree":  {{typ: "ltree", value: func(*rand.Rand) string { return "'Top.Science.Astronomy'" }}},
	"cube":   {{typ: "cube", value: func(r *rand.Rand) string { return fmt.Sprintf("'(%d,0.5),(2,3)'", r.IntN(9)) }}},
	"isn":    {{typ: "isbn", value: func(*rand.Rand) string { return "'0-393-04002-X'" }}},
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// orNull makes one in eight values NULL.
func orNull(r *rand.Rand, typ string, value func(*rand.Rand) string) string {
	if r.IntN(8) == 0 {
		return "null::" + typ
	}
	return value(r) + "::" + typ
}

func randomText(r *rand.Rand) string {
	if r.IntN(2) == 0 {
		return literal(pick(r, nasty...))
	}
	var text strings.Builder
	for range r.IntN(12) {
		text.WriteString(pick(r, `"`, `\`, `,`, `{`, `}`, `(`, `)`, ` `, "\n", "\t", "\x02", `'`, `é`, `😀`, `NULL`, `a`, `B`, `;`, `=>`))
	}
	return literal(text.String())
}

func randomBool(r *rand.Rand) string { return pick(r, "true", "false") }

func randomInt(r *rand.Rand) string {
	return literal(strconv.FormatInt(int64(r.Uint64())>>r.IntN(64), 10))
}

func randomNumeric(r *rand.Rand) string {
	if r.IntN(10) == 0 {
		return pick(r, "'NaN'", "'0'", "'0.000'", "'1e30'", "'-1e-20'")
	}
	digits := func(n int) string {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte('0' + r.IntN(10))
		}
		return string(text)
	}
	return literal(pick(r, "", "-") + digits(1+r.IntN(30)) + "." + digits(r.IntN(20)))
}

func randomFloat32(r *rand.Rand) string {
	return literal(strconv.FormatFloat(float64(math.Float32frombits(r.Uint32())), 'g', -1, 32))
}

func randomFloat64(r *rand.Rand) string {
	if r.IntN(2) == 0 {
		return literal(strconv.FormatFloat(r.NormFloat64()*1000, 'g', 1+r.IntN(17), 64))
	}
	return literal(strconv.FormatFloat(math.Float64frombits(r.Uint64()), 'g', -1, 64))
}

func randomDate(r *rand.Rand) string {
	if r.IntN(20) == 0 {
		return pick(r, "'infinity'", "'-infinity'")
	}
	if r.IntN(2) == 0 {
		return fmt.Sprintf("(date '2000-01-01' + %d)", r.IntN(40000)-20000)
	}
	return fmt.Sprintf("(date '4713-01-01 BC' + %d)", r.IntN(2147483493))
}

func randomMicroseconds(r *rand.Rand) string {
	if r.IntN(20) == 0 {
		return pick(r, "'infinity'", "'-infinity'")
	}
	span := int64(9_224_318_015_999_999_999 - 211_813_488_000_000_000) // of the type, cut to its years after 2000
	micros := r.Int64N(span)
	if r.IntN(2) == 0 {
		micros = r.Int64N(400_000_000_000_000_000) - 200_000_000_000_000_000 // 4338 BC to 8338
	}
	if r.IntN(3) == 0 {
		micros -= micros % 1_000_000
	}
	return fmt.Sprintf("(timestamp '2000-01-01' + %d * interval '1 day' + %d * interval '1 microsecond')", micros/86_400_000_000, micros%86_400_000_000)
}

func randomTimestamp(r *rand.Rand) string { return randomMicroseconds(r) + "::timestamp" }

func randomTimestampTZ(r *rand.Rand) string { return randomMicroseconds(r) + "::timestamptz" }

func randomInterval(r *rand.Rand) string {
	return fmt.Sprintf("(interval '%d months %d days' + %d * interval '1 microsecond')", r.IntN(2000)-1000, r.IntN(2000)-1000, r.Int64N(1e15)-5e14)
}

func randomBytes(r *rand.Rand) string {
	bytes := make([]byte, r.IntN(8))
	for i := range bytes {
		bytes[i] = byte(r.Uint32())
	}
	return fmt.Sprintf(`'\x%x'`, bytes)
}

func randomJSON(r *rand.Rand) string {
	return pick(r, `'{"a" : 1.50,  "b":[true , null]}'`, `'"a\"b\\c"'`, `' [1,	2] '`, `'{}'`, `'"</x>"'`, `'1E400'`, `'"é\u00e9"'`)
}

func randomMood(r *rand.Rand) string {
	return pick(r, `'sad'`, `'it''s "ok"'`, `'a,b'`, `'{}'`, `'NULL'`, `'ünïcode'`, `'\back\'`)
}

func randomPercent(r *rand.Rand) string { return strconv.Itoa(1 + r.IntN(100)) }

func randomPair(r *rand.Rand) string {
	return fmt.Sprintf("row(%s, %s)::pair", orNull(r, "int4", randomPercent), orNull(r, "text", randomText))
}

func randomStretch(r *rand.Rand) string {
	low := r.NormFloat64()
	return fmt.Sprintf("stretch(%v, %v, %s)", low, low+r.ExpFloat64(), literal(pick(r, "[]", "[)", "(]", "()")))
}

func randomWordRange(r *rand.Rand) string {
	a, b := randomText(r), randomText(r)
	return fmt.Sprintf("word_range(least(%s collate \"C\", %s), greatest(%s collate \"C\", %s), '[]')", a, b, a, b)
}

func randomSingle(r *rand.Rand) string {
	return fmt.Sprintf("row(%s)::single", orNull(r, "text", randomText))
}

func randomNothing(*rand.Rand) string { return "row()::nothing" }

func randomTags(r *rand.Rand) string { return randomArray("text", randomText)(r) + "::tags" }

func randomBox(r *rand.Rand) string {
	return fmt.Sprintf("'(%d,%d),(0,0)'", r.IntN(9), r.IntN(9))
}

func randomFrames(r *rand.Rand) string { return randomArray("frame", randomBox)(r) + "::frames" }

func randomHstore(r *rand.Rand) string {
	pairs := []string{"''::hstore"}
	for range r.IntN(4) {
		pairs = append(pairs, fmt.Sprintf("hstore(%s, %s)", randomText(r), orNull(r, "text", randomText)))
	}
	return "(" + strings.Join(pairs, " || ") + ")"
}

// randomArray makes arrays of one or two dimensions, empty ones, and ones with
// explicit bounds.
func randomArray(typ string, value func(*rand.Rand) string) func(*rand.Rand) string {
	list := func(r *rand.Rand, n int) string {
		values := make([]string, n)
		for i := range values {
			values[i] = orNull(r, typ, value)
		}
		return "array[" + strings.Join(values, ",") + "]::" + typ + "[]"
	}
	return func(r *rand.Rand) string {
		switch n := r.IntN(4); r.IntN(4) {
		case 0:
			return "array[" + list(r, n) + "," + list(r, n) + "]"
		case 1:
			return fmt.Sprintf("('[3:%d]=' || (%s)::text)::%s[]", 3+n, list(r, n+1), typ)
		default:
			return "(" + list(r, n) + ")"
		}
	}
}

func randomEverything(r *rand.Rand) string {
	fields := []string{
		orNull(r, "text", randomText), orNull(r, "bool", randomBool), orNull(r, "int2", randomPercent), orNull(r, "int8", randomInt),
		orNull(r, "amount", randomPercent), orNull(r, "float4", randomFloat32), orNull(r, "float8", randomFloat64),
		orNull(r, "date", randomDate), orNull(r, "timestamp", randomTimestamp), orNull(r, "timestamptz", randomTimestampTZ),
		orNull(r, "bytea", randomBytes), orNull(r, "json", randomJSON), orNull(r, "jsonb", randomJSON), orNull(r, "mood", randomMood),
		orNull(r, "percent", randomPercent), orNull(r, "tags", randomTags), orNull(r, "tags[]", func(r *rand.Rand) string { return "array[" + randomTags(r) + ",null]" }),
		orNull(r, "pair", randomPair), orNull(r, "good_pair", randomPair), orNull(r, "pair[]", randomArray("pair", randomPair)),
		orNull(r, "good_pair[]", randomArray("good_pair", randomPair)), orNull(r, "nothing", randomNothing),
		orNull(r, "nothing[]", randomArray("nothing", randomNothing)), orNull(r, "single", randomSingle),
		orNull(r, "single[]", randomArray("single", randomSingle)), orNull(r, "mood[]", randomArray("mood", randomMood)),
		orNull(r, "timestamptz[]", randomArray("timestamptz", randomTimestampTZ)), orNull(r, "json[]", randomArray("json", randomJSON)),
		orNull(r, "numeric[]", randomArray("numeric", randomNumeric)), orNull(r, "box[]", randomArray("box", randomBox)),
		orNull(r, "stretch", randomStretch), orNull(r, "stretch_multirange", func(r *rand.Rand) string { return "stretch_multirange(" + randomStretch(r) + ")" }),
		orNull(r, "word_range[]", randomArray("word_range", randomWordRange)), orNull(r, "bytea[]", randomArray("bytea", randomBytes)),
	}
	return "row(" + strings.Join(fields, ",") + ")::everything"
}

func randomLegacy(r *rand.Rand) string {
	return fmt.Sprintf("row(%s, %s, %s)::legacy", orNull(r, "int4", randomPercent), orNull(r, "everything", randomEverything), orNull(r, "date", randomDate))
}

// nasty are texts that some level of quoting could trip over.
var nasty = []string{
	``, ` `, `plain`, `two words`, ` lead`, `trail `, `NULL`, `null`, `nUlL`, `"`, `""`, `\`, `\\`, `\"`, `a"b\c`, `'`, `''`, `,`, `;`,
	`{}`, `{a,b}`, `(a,b)`, `()`, `[1:2]={1,2}`, `a=>b`, `"a"=>"b"`, `</script>&`, `é`, `😀`, "\u2028\u2029", "\u00a0", "\ufeff",
	"\x01", "\x1f", "\x7f", "\b\f\n\r\t\v", "a\nb", `\u0041`, `\n`, `%s`, `true`, `12`, `-`, `NaN`, strings.Repeat(`x"\`, 40),
}

// edges are texts that each built-in type takes. Types that are missing here
// are in expressions or in unreachableTypes.
var edges = map[string][]string{
	"bool":          {"t", "f"},
	"bytea":         {"", `\x`, `\x00ff5c22`, `\\000\\\\`},
	"char":          {"", "a", `"`, `\`, " ", "{", ",", "N"},
	"name":          {"", "a", `A "b" \c`, strings.Repeat("é", 31)},
	"int8":          {"0", "-1", "9223372036854775807", "-9223372036854775808", "9007199254740993"},
	"int2":          {"0", "32767", "-32768"},
	"int4":          {"0", "-0", "2147483647", "-2147483648"},
	"int2vector":    {"", "1", "1 -2 32767"},
	"oidvector":     {"", "1", "1 2 4294967295"},
	"regproc":       {"0", "-", "boolin", "pg_catalog.array_out"},
	"regprocedure":  {"0", "boolin(cstring)", "array_in(cstring,oid,integer)"},
	"regoper":       {"0", "pg_catalog.||/"},
	"regoperator":   {"0", "+(integer,integer)", "||/(none,double precision)"},
	"regclass":      {"pg_class", `"Mixed Case"`},
	"regtype":       {"0", "int4", "int4[]", `"char"`, "timestamptz", "4294967295"},
	"regconfig":     {"0", "simple", "english"},
	"regdictionary": {"0", "simple"},
	"regnamespace":  {"0", "pg_catalog"},
	"regrole":       {"0", "pg_monitor"},
	"regcollation":  {"0", `"C"`},
	"text":          nasty,
	"oid":           {"0", "4294967295"},
	"tid":           {"(0,0)", "(4294967295,65535)"},
	"xid":           {"0", "4294967295"},
	"cid":           {"0", "4294967295"},
	"xid8":          {"0", "18446744073709551615"},
	"json":          {`{}`, `[]`, `null`, `"a\u0000b\/\"\\"`, ` { "a" : 1.500 , "a":2E5,` + "\n\t" + `"<&>":[ ] } `, `-0.0e-0`, `"é😀"`, `"\ud83d\ude00"`},
	"jsonb":         {`{}`, `[]`, `null`, `"a\/\"\\"`, `{"b":1.500,"a":[1,{"<&>":null}]}`, `1e5`, `"\ud83d\ude00\u0001"`, `true`},
	"jsonpath":      {`$`, `strict $.a[*] ? (@ > 1 && @ like_regex "x\"y")`},
	"xml":           {``, `<a b="c">d &amp; e</a>`, `<?xml version="1.0" encoding="UTF-8"?><a/>`, "text\n<b/>"},
	"point":         {"(0,-0)", "(1e300,-Infinity)", "(NaN,0.1)"},
	"lseg":          {"[(0,0),(1,1)]"},
	"path":          {"[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"},
	"box":           {"(1,1),(0,0)", "(2.5,3),(-1,-1)"},
	"polygon":       {"((0,0),(1,1),(2,0))"},
	"line":          {"{1,-1,0}"},
	"circle":        {"<(0,0),1.5>"},
	"cidr":          {"10.0.0.0/8", "2001:db8::/32", "::ffff:1.2.3.4/128"},
	"inet":          {"10.0.0.1", "10.0.0.1/8", "::1", "::10.2.3.4"},
	"macaddr":       {"08:00:2b:01:02:03"},
	"macaddr8":      {"08:00:2b:01:02:03:04:05"},
	"float4":        {"0", "-0", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "0.1", "1e6", "1e-5", "16777217"},
	"float8":        {"0", "-0", "NaN", "Infinity", "-Infinity", "1.7976931348623157e308", "4.9e-324", "0.1", "1e15", "1e16", "1e-5", "0.30000000000000004"},
	"numeric":       {"0", "-0", "0.00", "NaN", "Infinity", "-Infinity", "1e-30", "1.10", "-.5", "123456789012345678901234567890.123456789000", "1e400"},
	"money":         {"0", "-1234567.89", "92233720368547758.07"},
	"aclitem":       {"=r/postgres", "postgres=arwdDxt/postgres"},
	"bpchar":        {"", "a", "a   ", `"`, " "},
	"varchar":       nasty,
	"date":          {"2024-02-29", "0001-01-01", "0001-12-31 BC", "4713-01-01 BC", "5874897-12-31", "9999-12-31", "10000-01-01", "infinity", "-infinity", "epoch"},
	"time":          {"00:00:00", "23:59:59.999999", "24:00:00", "12:30:00.1"},
	"timetz":        {"00:00:00+00", "23:59:59.999999-15:59:59", "12:00:00+05:30", "24:00:00+00"},
	"timestamp": {"2024-02-29 12:34:56.789", "2024-02-29", "1970-01-01 00:00:00.000001", "0001-01-01", "0044-03-15 12:00:00 BC",
		"4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "10000-01-01", "infinity", "-infinity", "1999-12-31 23:59:60"},
	"timestamptz": {"2024-02-29 12:34:56.789+05:30", "2024-02-29", "1969-12-31 23:59:59.999999+00", "0044-03-15 12:00:00+00 BC", "1800-01-01 00:00:00 Europe/Berlin",
		"4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "10000-01-01", "infinity", "-infinity", "0001-12-31 BC"},
	"interval":       {"0", "1 year 2 mons -3 days 04:05:06.789", "-1 mons", "178000000 years", "-00:00:00.000001", "1 day"},
	"bit":            {"0", "1"},
	"varbit":         {"", "0", "10110"},
	"refcursor":      {"", `a "b"`},
	"uuid":           {"00000000-0000-0000-0000-000000000000", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"},
	"txid_snapshot":  {"10:20:10,14,15", "1:1:"},
	"pg_snapshot":    {"10:20:10,14,15", "1:1:"},
	"pg_lsn":         {"0/0", "FFFFFFFF/FFFFFFFF"},
	"tsvector":       {"", "a:1A fat:2B,4C 'it''s' 'a \\\\ b'"},
	"tsquery":        {"", "fat & (rat | !'it''s') <-> cat:*AB"},
	"int4range":      {"empty", "(,)", "[1,10)", "[1,)"},
	"int8range":      {"empty", "(,)", "[-9223372036854775808,0)"},
	"numrange":       {"empty", "(,)", "[1.10,2.0]", "(-Infinity,NaN]"},
	"daterange":      {"empty", "(,)", "[2024-01-01,infinity]", "[0044-03-15 BC,2024-01-01)"},
	"tsrange":        {"empty", "(,)", `["2024-01-01 00:00:00","2024-02-01 12:00:00.5"]`, "[-infinity,infinity]"},
	"tstzrange":      {"empty", "(,)", `["2024-01-01 00:00:00+02","2024-02-01 12:00:00.5+00")`, `("0044-03-15 12:00:00+00 BC",)`},
	"int4multirange": {"{}", "{[1,2),[5,9)}", "{(,)}"},
	"int8multirange": {"{}", "{[1,2),[5,9)}"},
	"nummultirange":  {"{}", "{[1.10,2.0],(3,NaN]}"},
	"datemultirange": {"{}", "{[2024-01-01,2024-02-01),[2025-01-01,infinity]}"},
	"tsmultirange":   {"{}", `{["2024-01-01 00:00:00","2024-02-01 00:00:00"),["2025-01-01 00:00:00",)}`},
	"tstzmultirange": {"{}", `{["2024-01-01 00:00:00+00","2024-02-01 00:00:00+00")}`},
}

// expressions give values of types whose input functions take none.
var expressions = map[string]string{
	"pg_ndistinct":    "(select stxdndistinct from pg_statistic_ext_data)",
	"pg_dependencies": "(select stxddependencies from pg_statistic_ext_data)",
	"pg_mcv_list":     "(select stxdmcv from pg_statistic_ext_data)",
	"pg_node_tree":    `(select conbin from pg_constraint where conrelid = '"Mixed Case"'::regclass)`,
}

// serverFilled are types that a table of a user cannot be given a value of.
var serverFilled = map[string]bool{
	"pg_ndistinct": true, "pg_dependencies": true, "pg_mcv_list": true, "pg_node_tree": true,
	"regclass": true, // its sample is a table of the other test
}

// edgeValues are SQL expressions for the edge values of a built-in type.
func edgeValues(typ string) ([]string, bool) {
	if expression, ok := expressions[typ]; ok {
		return []string{expression}, true
	}
	texts, ok := edges[typ]
	var values []string
	for _, text := range texts {
		values = append(values, literal(text)+"::"+pgx.Identifier{typ}.Sanitize())
	}
	return values, ok
}

// userTypesSQL is every way to make a type, on top of each other.
const userTypesSQL = `
	create type mood as enum ('sad', 'it''s "ok"', 'a,b', '{}', 'NULL', 'ünïcode', '\back\');
	create domain positive as bigint check (value > 0);
	create domain percent as positive check (value <= 100);
	create domain tags as text[];
	create domain frame as box;
	create domain frames as frame[];
	create domain amount as numeric(20, 4);
	create type pair as (n int, s text);
	create domain good_pair as pair;
	create type nothing as ();
	create type single as (word text);
	create type stretch as range (subtype = float8);
	create type word_range as range (subtype = text);
	create type everything as (
		"Quoted ""name"" \ {x}" text, flag bool, i2 smallint, i8 bigint, amount amount, f4 real, f8 double precision,
		day date, moment timestamp, instant timestamptz, raw bytea, doc json, docb jsonb, mood mood, percent percent,
		tags tags, taglists tags[], pair pair, good good_pair, pairs pair[], goods good_pair[], nothing nothing,
		nothings nothing[], single single, singles single[], moods mood[], moments timestamptz[], docs json[],
		numbers numeric[], boxes box[], stretch stretch, stretches stretch_multirange, words word_range[], raws bytea[]);
	create domain all_of_it as everything;
	create table legacy (id int, gone text, "row" everything);
	alter table legacy drop column gone, add column late date`
