package pgjson

// TypeKind says in which way to_json() writes the values of a type.
type TypeKind byte

// The kinds of type. The zero kind stands for a type that is not registered,
// and for one whose JSON the stream cannot tell.
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

// Type is what has to be known of a PostgreSQL type to write its values.
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

// Types is a registry of types by OID. A new one knows every built-in type;
// enums, domains, composites and the types of extensions differ from database
// to database and are added as they are learnt ([TypesQuery]).
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
// order does not matter: what a type refers to is looked up when a value is
// written.
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

// Known reports whether AppendJSON writes what to_json() would for this type:
// whether it and everything it is made of is registered, and none of it has a
// cast to json of the user's own. What is not known is still written, as a
// JSON string.
func (t *Types) Known(oid uint32) bool {
	return t.known(oid, map[uint32]bool{})
}

func (t *Types) known(oid uint32, seen map[uint32]bool) bool {
	if seen[oid] {
		return true // being looked at further up, or found to be known
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

// Name is the name of a type for people, or "" when it is not registered.
func (t *Types) Name(oid uint32) string {
	if typ := t.byOID[oid]; typ != nil {
		return typ.Name
	}
	return ""
}
