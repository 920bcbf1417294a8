package pgjson_test

import (
	"testing"

	"walhook/schemas/pgjson"
)

func TestTypes_KnowsWhatItCanWriteFaithfully(t *testing.T) {
	types := testTypes()
	for name, test := range map[string]struct {
		oid  uint32
		want bool
	}{
		"built-in":                       {oidNumeric, true},
		"built-in array":                 {oidTextA, true},
		"nested composite":               {oidOuter, true},
		"domain over a domain":           {oidPercent, true},
		"array of hstore":                {oidHstoreA, true},
		"never registered":               {oidNoSuch, false},
		"composite with an unknown type": {oidHalfKnown, false},
		"cast to json":                   {oidCast, false},
	} {
		if got := types.Known(test.oid); got != test.want {
			t.Errorf("%s: Known = %v, want %v", name, got, test.want)
		}
	}
}

func TestTypes_AddReplaces(t *testing.T) {
	types := testTypes()
	types.Add(pgjson.Type{OID: oidPair, Name: "pair", Kind: pgjson.TypeComposite, Attributes: []pgjson.Attribute{
		{Name: "number", Type: oidInt4}, {Name: "s", Type: oidText}, {Name: "added", Type: oidBool}}})
	wantJSON(t, types, oidPairA, `{"(1,a,t)"}`, `[{"number":1,"s":"a","added":true}]`)
}
