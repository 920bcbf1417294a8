package pgjson_test

import (
	"testing"
)

func TestAppendJSON_NestsArrays(t *testing.T) {
	types := testTypes()
	for name, test := range map[string]struct {
		oid        uint32
		text, want string
	}{
		"empty":                     {oidInt4A, `{}`, `[]`},
		"one dimension":             {oidInt4A, `{1,2,3}`, `[1,2,3]`},
		"NULL":                      {oidInt4A, `{1,NULL}`, `[1,null]`},
		"the word NULL":             {oidTextA, `{"NULL",NULL}`, `["NULL",null]`},
		"two dimensions":            {oidInt4A, `{{1,2},{3,4}}`, `[[1,2],[3,4]]`},
		"six dimensions":            {oidInt4A, `{{{{{{1}}}}}}`, `[[[[[[1]]]]]]`},
		"bounds":                    {oidInt4A, `[2:3]={7,8}`, `[7,8]`},
		"bounds below zero":         {oidInt4A, `[-1:0][0:0]={{7},{8}}`, `[[7],[8]]`},
		"quotes and backslashes":    {oidTextA, `{"a\"b","c\\d","e f","{g,h}",""}`, `["a\"b","c\\d","e f","{g,h}",""]`},
		"control characters":        {oidTextA, "{\"a\tb\nc\"}", `["a\tb\nc"]`},
		"non-ASCII":                 {oidTextA, `{é,😀}`, `["é","😀"]`},
		"boxes have a semicolon":    {oidBoxA, `{(1,1),(0,0);(3,3),(2,2)}`, `["(1,1),(0,0)","(3,3),(2,2)"]`},
		"of composites":             {oidPairA, `{"(1,a)",NULL,"(,\"b \"\"c\")"}`, `[{"n":1,"s":"a"},null,{"n":null,"s":"b \"c"}]`},
		"of a domain over an array": {oidIntListA, `{"{1,2}","{3}",NULL,"{}"}`, `[[1,2],[3],null,[]]`},
		"of int2vector":             {oidInt2VectorA, `{"1 2",3}`, `[[1,2],[3]]`},
		"of hstore":                 {oidHstoreA, `{"\"a\"=>\"1\"",""}`, `[{"a": "1"},{}]`},
	} {
		t.Run(name, func(t *testing.T) { wantJSON(t, types, test.oid, test.text, test.want) })
	}
}

func TestAppendJSON_WritesCompositesAsObjects(t *testing.T) {
	types := testTypes()
	for name, test := range map[string]struct {
		oid        uint32
		text, want string
	}{
		"fields":                {oidPair, `(1,a)`, `{"n":1,"s":"a"}`},
		"NULL and empty":        {oidPair, `(,"")`, `{"n":null,"s":""}`},
		"all NULL":              {oidPair, `(,)`, `{"n":null,"s":null}`},
		"the word NULL":         {oidPair, `(,NULL)`, `{"n":null,"s":"NULL"}`},
		"quotes":                {oidPair, `(1,"a ""b"" \\ (c), d")`, `{"n":1,"s":"a \"b\" \\ (c), d"}`},
		"a brace needs none":    {oidPair, `(1,{})`, `{"n":1,"s":"{}"}`},
		"no field":              {oidNothing, `()`, `{}`},
		"one field, NULL":       {oidSingle, `()`, `{"a":null}`},
		"nested":                {oidOuter, `("(1,""a """"b"""""")","{1,NULL}","{""(2,c)"",NULL}")`, `{"the \"pair\"":{"n":1,"s":"a \"b\""},"list":[1,null],"pairs":[{"n":2,"s":"c"},null]}`},
		"nested NULL":           {oidOuter, `(,,)`, `{"the \"pair\"":null,"list":null,"pairs":null}`},
		"nested empty":          {oidOuter, `("(,)",{},{})`, `{"the \"pair\"":{"n":null,"s":null},"list":[],"pairs":[]}`},
		"a type not registered": {oidHalfKnown, `(1,"a b")`, `{"a":1,"b":"a b"}`},
	} {
		t.Run(name, func(t *testing.T) { wantJSON(t, types, test.oid, test.text, test.want) })
	}
}
