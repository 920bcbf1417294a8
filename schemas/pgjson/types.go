package pgjson

// TypeKind says how to_json() writes the values of a type.
type TypeKind byte

// The kinds of type. The zero kind stands for a type that is not registered, and
// for one whose JSON cannot be derived from its text.
const (
	TypeUnknown     TypeKind = iota
	TypeString               // its text in quotes: text, uuid, money, enums, ranges, …
	TypeNumber               // its text, or NaN and the infinities in quotes
	TypeBool                 // true or false
	TypeJSON                 // its text, verbatim
	TypeDate                 // ISO 8601
	TypeTimestamp            // ISO 8601 with T
	TypeTimestampTZ          // ISO 8601 with T and +00:00
	TypeChar                 // the one-byte type "char"
	TypeArray                // a list of Elem, nested by dimension
	TypeVector               // int2vector, oidvector: a list of Elem, printed with spaces between
	TypeComposite            // an object of Attributes
	TypeDomain               // as Base
	TypeHstore               // an object of strings and nulls
)

// Type is what the registry needs to know of a PostgreSQL type to write its values.
type Type struct {
	OID        uint32
	Name       string // as SQL writes it; for errors and logs only
	Kind       TypeKind
	Elem       uint32      // TypeArray and TypeVector: the type of the elements
	Delim      byte        // TypeArray: what stands between elements; zero is a comma
	Base       uint32      // TypeDomain: the type below, itself perhaps a domain
	Attributes []Attribute // TypeComposite, in order, without dropped ones
}

// Attribute is one field of a composite type.
type Attribute struct {
	Name string
	Type uint32 // OID
}

// Types is a registry of types by OID. A new one knows every built-in type. Enums,
// domains, composites and the types of extensions differ between databases; the
// caller adds them as it reads them ([TypesQuery]).
//
// Any number of goroutines may read it, as long as none calls Add.
type Types struct {
	byOID map[uint32]*registeredType
}

// registeredType is a Type with its attributes' names ready for output.
type registeredType struct {
	Type
	keys [][]byte // "name": for each attribute
}

// NewTypes returns a registry of PostgreSQL's built-in types.
func NewTypes() *Types {
	t := &Types{byOID: make(map[uint32]*registeredType, 3*len(builtinTypes))}
	for _, b := range builtinTypes {
		t.Add(Type{OID: b.oid, Name: b.name, Kind: b.kind, Elem: b.elem})
		if b.array != 0 {
			t.Add(Type{OID: b.array, Name: b.name + "[]", Kind: TypeArray, Elem: b.oid, Delim: b.delim})
		}
	}
	return t
}

// Add registers types, or replaces what was registered under their OIDs. The
// order does not matter: AppendJSON looks up what a type refers to.
func (t *Types) Add(types ...Type) {
	for _, typ := range types {
		if typ.Delim == 0 {
			typ.Delim = ','
		}
		r := &registeredType{Type: typ, keys: make([][]byte, len(typ.Attributes))}
		for i, attribute := range typ.Attributes {
			r.keys[i] = append(AppendString(nil, []byte(attribute.Name)), ':')
		}
		t.byOID[typ.OID] = r
	}
}

// Known reports whether AppendJSON writes what to_json() would for this type: the
// type and everything that it is made of is registered, and nothing of it has a
// user-defined cast to json. AppendJSON writes any other type as a JSON string.
func (t *Types) Known(oid uint32) bool {
	return t.known(oid, map[uint32]bool{})
}

func (t *Types) known(oid uint32, seen map[uint32]bool) bool {
	if seen[oid] {
		return true // a caller further up checks it, or it is known
	}
	seen[oid] = true
	typ := t.byOID[oid]
	if typ == nil {
		return false
	}
	switch typ.Kind {
	case TypeUnknown:
		return false
	case TypeArray, TypeVector:
		return t.known(typ.Elem, seen)
	case TypeDomain:
		return t.known(typ.Base, seen)
	case TypeComposite:
		for _, attribute := range typ.Attributes {
			if !t.known(attribute.Type, seen) {
				return false
			}
		}
	}
	return true
}

// Name returns the name of a type for people, or "" when it is not registered.
func (t *Types) Name(oid uint32) string {
	if typ := t.byOID[oid]; typ != nil {
		return typ.Name
	}
	return ""
}

// builtinTypes are the types that every database has, with the OIDs that
// PostgreSQL's pg_type.dat fixes: the same in 14, 15, 16, 17 and 18. The list has
// no pseudo-types, since no column can have one.
var builtinTypes = [...]struct {
	oid   uint32
	array uint32 // the type of its arrays; zero for none
	name  string
	kind  TypeKind
	elem  uint32 // TypeVector only
	delim byte   // between elements of its arrays; zero is a comma
}{
	{oid: 16, array: 1000, name: "boolean", kind: TypeBool},
	{oid: 17, array: 1001, name: "bytea", kind: TypeString},
	{oid: 18, array: 1002, name: `"char"`, kind: TypeChar},
	{oid: 19, array: 1003, name: "name", kind: TypeString},
	{oid: 20, array: 1016, name: "bigint", kind: TypeNumber},
	{oid: 21, array: 1005, name: "smallint", kind: TypeNumber},
	{oid: 22, array: 1006, name: "int2vector", kind: TypeVector, elem: 21},
	{oid: 23, array: 1007, name: "integer", kind: TypeNumber},
	{oid: 24, array: 1008, name: "regproc", kind: TypeString},
	{oid: 25, array: 1009, name: "text", kind: TypeString},
	{oid: 26, array: 1028, name: "oid", kind: TypeString},
	{oid: 27, array: 1010, name: "tid", kind: TypeString},
	{oid: 28, array: 1011, name: "xid", kind: TypeString},
	{oid: 29, array: 1012, name: "cid", kind: TypeString},
	{oid: 30, array: 1013, name: "oidvector", kind: TypeVector, elem: 26},
	{oid: 114, array: 199, name: "json", kind: TypeJSON},
	{oid: 142, array: 143, name: "xml", kind: TypeString},
	{oid: 194, name: "pg_node_tree", kind: TypeString},
	{oid: 600, array: 1017, name: "point", kind: TypeString},
	{oid: 601, array: 1018, name: "lseg", kind: TypeString},
	{oid: 602, array: 1019, name: "path", kind: TypeString},
	{oid: 603, array: 1020, name: "box", kind: TypeString, delim: ';'},
	{oid: 604, array: 1027, name: "polygon", kind: TypeString},
	{oid: 628, array: 629, name: "line", kind: TypeString},
	{oid: 650, array: 651, name: "cidr", kind: TypeString},
	{oid: 700, array: 1021, name: "real", kind: TypeNumber},
	{oid: 701, array: 1022, name: "double precision", kind: TypeNumber},
	{oid: 718, array: 719, name: "circle", kind: TypeString},
	{oid: 774, array: 775, name: "macaddr8", kind: TypeString},
	{oid: 790, array: 791, name: "money", kind: TypeString},
	{oid: 829, array: 1040, name: "macaddr", kind: TypeString},
	{oid: 869, array: 1041, name: "inet", kind: TypeString},
	{oid: 1033, array: 1034, name: "aclitem", kind: TypeString},
	{oid: 1042, array: 1014, name: "character", kind: TypeString},
	{oid: 1043, array: 1015, name: "character varying", kind: TypeString},
	{oid: 1082, array: 1182, name: "date", kind: TypeDate},
	{oid: 1083, array: 1183, name: "time without time zone", kind: TypeString},
	{oid: 1114, array: 1115, name: "timestamp without time zone", kind: TypeTimestamp},
	{oid: 1184, array: 1185, name: "timestamp with time zone", kind: TypeTimestampTZ},
	{oid: 1186, array: 1187, name: "interval", kind: TypeString},
	{oid: 1266, array: 1270, name: "time with time zone", kind: TypeString},
	{oid: 1560, array: 1561, name: "bit", kind: TypeString},
	{oid: 1562, array: 1563, name: "bit varying", kind: TypeString},
	{oid: 1700, array: 1231, name: "numeric", kind: TypeNumber},
	{oid: 1790, array: 2201, name: "refcursor", kind: TypeString},
	{oid: 2202, array: 2207, name: "regprocedure", kind: TypeString},
	{oid: 2203, array: 2208, name: "regoper", kind: TypeString},
	{oid: 2204, array: 2209, name: "regoperator", kind: TypeString},
	{oid: 2205, array: 2210, name: "regclass", kind: TypeString},
	{oid: 2206, array: 2211, name: "regtype", kind: TypeString},
	{oid: 2950, array: 2951, name: "uuid", kind: TypeString},
	{oid: 2970, array: 2949, name: "txid_snapshot", kind: TypeString},
	{oid: 3220, array: 3221, name: "pg_lsn", kind: TypeString},
	{oid: 3361, name: "pg_ndistinct", kind: TypeString},
	{oid: 3402, name: "pg_dependencies", kind: TypeString},
	{oid: 3614, array: 3643, name: "tsvector", kind: TypeString},
	{oid: 3615, array: 3645, name: "tsquery", kind: TypeString},
	{oid: 3642, array: 3644, name: "gtsvector", kind: TypeString},
	{oid: 3734, array: 3735, name: "regconfig", kind: TypeString},
	{oid: 3769, array: 3770, name: "regdictionary", kind: TypeString},
	{oid: 3802, array: 3807, name: "jsonb", kind: TypeJSON},
	{oid: 3904, array: 3905, name: "int4range", kind: TypeString},
	{oid: 3906, array: 3907, name: "numrange", kind: TypeString},
	{oid: 3908, array: 3909, name: "tsrange", kind: TypeString},
	{oid: 3910, array: 3911, name: "tstzrange", kind: TypeString},
	{oid: 3912, array: 3913, name: "daterange", kind: TypeString},
	{oid: 3926, array: 3927, name: "int8range", kind: TypeString},
	{oid: 4072, array: 4073, name: "jsonpath", kind: TypeString},
	{oid: 4089, array: 4090, name: "regnamespace", kind: TypeString},
	{oid: 4096, array: 4097, name: "regrole", kind: TypeString},
	{oid: 4191, array: 4192, name: "regcollation", kind: TypeString},
	{oid: 4451, array: 6150, name: "int4multirange", kind: TypeString},
	{oid: 4532, array: 6151, name: "nummultirange", kind: TypeString},
	{oid: 4533, array: 6152, name: "tsmultirange", kind: TypeString},
	{oid: 4534, array: 6153, name: "tstzmultirange", kind: TypeString},
	{oid: 4535, array: 6155, name: "datemultirange", kind: TypeString},
	{oid: 4536, array: 6157, name: "int8multirange", kind: TypeString},
	{oid: 4600, name: "pg_brin_bloom_summary", kind: TypeString},
	{oid: 4601, name: "pg_brin_minmax_multi_summary", kind: TypeString},
	{oid: 5017, name: "pg_mcv_list", kind: TypeString},
	{oid: 5038, array: 5039, name: "pg_snapshot", kind: TypeString},
	{oid: 5069, array: 271, name: "xid8", kind: TypeString},
}
