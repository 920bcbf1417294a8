package pgjson

import "slices"

// TypesQuery reads the types that [Types] does not know by itself, from PostgreSQL
// 14 and newer, with any role. Its one parameter is an array of type OIDs. The
// result has those of them that are not built in, and every other such type that
// they are made of. NULL stands for every type of the database; with very many
// tables the result is long, since each table has a row type.
//
// The columns are those of [TypeRow], in its order.
//
// The query decides "array" as to_json does, and only where array_out prints the
// text. to_json calls a type's cast function to json. Types knows the one of
// hstore; with any other cast the kind is "unknown".
const TypesQuery = `
with recursive wanted (oid) as (
	select t.oid
	from pg_catalog.pg_type t
	where case
		when $1::pg_catalog.oid[] is not null then t.oid = any ($1::pg_catalog.oid[])
		else t.oid >= 10000 and t.typtype <> 'p'
	end
	union
	select part.oid
	from wanted w
	join pg_catalog.pg_type t on t.oid = w.oid
	cross join lateral (
		select t.typelem where t.typelem <> 0
		union all
		select t.typbasetype where t.typbasetype <> 0
		union all
		select a.atttypid
		from pg_catalog.pg_attribute a
		where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
	) part (oid)
)
select
	t.oid,
	pg_catalog.format_type(t.oid, null),
	case
		when t.typtype = 'c' then 'composite'
		when t.typtype = 'd' then 'domain'
		when t.typelem <> 0 and t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc then
			case when t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc then 'array' else 'unknown' end
		when tojson.prosrc = 'hstore_to_json' then 'hstore'
		when tojson.prosrc is not null then 'unknown'
		else 'string'
	end,
	t.typelem,
	t.typbasetype,
	coalesce(elem.typdelim, t.typdelim)::text,
	array(
		select a.attname::text
		from pg_catalog.pg_attribute a
		where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
		order by a.attnum
	),
	array(
		select a.atttypid
		from pg_catalog.pg_attribute a
		where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
		order by a.attnum
	)
from wanted
join pg_catalog.pg_type t on t.oid = wanted.oid
left join pg_catalog.pg_type elem on elem.oid = t.typelem
left join lateral (
	select p.prosrc
	from pg_catalog.pg_cast c
	join pg_catalog.pg_proc p on p.oid = c.castfunc
	where c.castsource = t.oid and c.casttarget = 'pg_catalog.json'::pg_catalog.regtype and c.castmethod = 'f'
) tojson on true
where t.oid >= 10000 or t.typtype = 'c'
order by t.oid`

// TypeRow is one row of TypesQuery. Its fields are in the order of the
// query's columns, so that they can be scanned by position.
type TypeRow struct {
	OID            uint32
	Name           string
	Kind           string
	Elem           uint32
	Base           uint32
	Delim          string
	AttributeNames []string
	AttributeTypes []uint32
}

// Type converts the row into the registry's form.
func (r TypeRow) Type() Type {
	typ := Type{OID: r.OID, Name: r.Name, Elem: r.Elem, Base: r.Base}
	switch r.Kind {
	case "string":
		typ.Kind = TypeString
	case "array":
		typ.Kind = TypeArray
	case "composite":
		typ.Kind = TypeComposite
	case "domain":
		typ.Kind = TypeDomain
	case "hstore":
		typ.Kind = TypeHstore
	}
	if len(r.Delim) == 1 {
		typ.Delim = r.Delim[0]
	}
	for i := range min(len(r.AttributeNames), len(r.AttributeTypes)) {
		typ.Attributes = append(typ.Attributes, Attribute{Name: r.AttributeNames[i], Type: r.AttributeTypes[i]})
	}
	return typ
}

// SameAs reports whether two rows describe a type in the same way.
func (r TypeRow) SameAs(other TypeRow) bool {
	return r.OID == other.OID && r.Name == other.Name && r.Kind == other.Kind && r.Elem == other.Elem && r.Base == other.Base && r.Delim == other.Delim &&
		slices.Equal(r.AttributeNames, other.AttributeNames) && slices.Equal(r.AttributeTypes, other.AttributeTypes)
}
