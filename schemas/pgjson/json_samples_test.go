package pgjson_test

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

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
