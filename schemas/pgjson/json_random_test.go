package pgjson_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
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
