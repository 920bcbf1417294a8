package pgjson_test

import "testing"

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
