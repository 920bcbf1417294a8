package pgjson_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

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

// TestTypesQuery_ReadsWhatATypeIsMadeOf begins with one type and gets the rest.
func TestTypesQuery_ReadsWhatATypeIsMadeOf(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.exec(userTypesSQL + `;
		create type unrelated as enum ('a');
		alter type everything add attribute dropped int;
		alter type everything drop attribute dropped`)
	var oid uint32
	if err := o.conn.QueryRow(t.Context(), "select 'everything[]'::regtype::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	types, names := pgjson.NewTypes(), []string{}
	for _, row := range readTypes(t, o.conn, []uint32{oid}) {
		types.Add(row.Type())
		names = append(names, row.Name)
	}
	if !types.Known(oid) {
		t.Errorf("everything[] is not known after reading %v", names)
	}
	if slices.Contains(names, "unrelated") || !slices.Contains(names, "percent") {
		t.Errorf("read %v", names)
	}
	if rows := readTypes(t, o.conn, []uint32{oidInt4, oidTextA}); len(rows) != 0 {
		t.Errorf("built-in types are read: %v", rows)
	}
}

// TestTypesQuery_SeesCastsToJSON: what such a cast gives, only the server
// knows, so the type is not known here, and neither is what holds it.
func TestTypesQuery_SeesCastsToJSON(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.exec(`
		create type coin as enum ('head', 'tail');
		create function coin_json(coin) returns json language sql as $$ select '{"coin": true}'::json $$;
		create cast (coin as json) with function coin_json(coin);
		create type plain as enum ('a');
		create cast (plain as json) with inout;
		create table purse (coins coin[], plain plain)`)
	o.learnTypes()
	result := o.exec("select to_json('head'::coin)::text, 'head'::coin, array['head'::coin], 'a'::plain")[0]
	if got := string(result.Rows[0][0]); got != `{"coin": true}` {
		t.Fatalf("to_json does not use the cast: %s", got)
	}
	for i, known := range []bool{1: false, 2: false, 3: true} {
		if oid := result.FieldDescriptions[i].DataTypeOID; i > 0 && o.types.Known(oid) != known {
			t.Errorf("%s: Known = %v, want %v", o.types.Name(oid), !known, known)
		}
	}
	o.compare("select 'a'::plain, to_json('a'::plain)::text")
}

// TestTypesQuery_NeedsNoPrivilege runs it as a role that owns nothing and sees
// no schema but the catalog.
func TestTypesQuery_NeedsNoPrivilege(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.exec(userTypesSQL)
	want := readTypes(t, o.conn, nil)
	role := pgx.Identifier{"nobody_of_" + o.conn.Config().Database}.Sanitize()
	o.exec("create role " + role + "; revoke all on schema public from public; set role " + role)
	t.Cleanup(func() {
		if _, err := o.conn.Exec(context.Background(), "reset role; drop role "+role); err != nil {
			t.Errorf("drop role: %v", err)
		}
	})
	if got := readTypes(t, o.conn, nil); len(got) != len(want) || len(got) == 0 {
		t.Errorf("the role sees %d types, the owner %d", len(got), len(want))
	}
}

// TestTypesQuery_FollowsAnAlteredType: a value of the new shape is refused,
// not misread, until the type has been read again.
func TestTypesQuery_FollowsAnAlteredType(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.exec("create type pair as (n int, s text); create table pairs (p pair[]); insert into pairs values (array[row(1, 'a')::pair])")
	o.learnTypes()
	o.compare("select p, to_json(p)::text from pairs")

	o.exec("alter type pair rename attribute s to label; alter type pair add attribute added text")
	o.exec("insert into pairs values (array[row(2, 'b', 'c')::pair])")
	result := o.exec("select p from pairs order by p")[0]
	for _, row := range result.Rows {
		if _, err := o.types.AppendJSON(nil, result.FieldDescriptions[0].DataTypeOID, row[0]); !errors.Is(err, pgjson.ErrAttributes) {
			t.Errorf("%s: %v, want ErrAttributes", row[0], err)
		}
	}
	o.learnTypes()
	o.compare("select p, to_json(p)::text from pairs")
}
