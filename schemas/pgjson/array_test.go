package pgjson_test

import "testing"

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
