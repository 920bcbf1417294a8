// Package pgjson writes the JSON that PostgreSQL's to_json gives for a value, byte
// for byte, from the text that the server's output function prints for it.
//
//	pg_type ──TypesQuery──▶ TypeRow ──Types.Add──▶ Types
//	                                                 │
//	value's text ────────────Types.AppendJSON────────┴──▶ JSON, appended to a buffer
//
// # What it promises
//
// [Types] knows the built-in types of PostgreSQL 14 to 18. [TypesQuery] reads the
// others from a database (enums, domains, composites, ranges, hstore) and needs no
// privilege. For every type for which [Types.Known] is true the result equals the
// server's to_json. Tests compare the two, over random values of random types.
//
// [Types.AppendJSON] appends to the caller's buffer. It never reads a number into a
// float, so a numeric keeps every digit. The package imports only the standard
// library.
//
// The server must print the text under the settings that [Types.AppendJSON] lists.
// The reader of the stream pins them on its connection.
//
// # How a value is written
//
// A type has a kind ([TypeKind]), and the kind decides:
//
//	text, uuid, money, enum, range, …   a JSON string of the text
//	integers, numeric, floats           the text; NaN and the infinities as strings
//	bool                                true or false
//	json, jsonb                         the text, verbatim
//	date, timestamp, timestamptz        a string in ISO 8601, in UTC
//	array                               nested lists
//	composite                           an object of its attributes
//	domain                              as its base type
//	hstore                              an object of strings and nulls
//
// # Where to look
//
//	the JSON of a value                       json.go, append
//	arrays, composites, domains, hstore       nested.go
//	the kind of a type, and its properties    types.go
//
// # What happens on failure
//
// For a text that its type does not print, AppendJSON returns a [*ValueError]. The
// error names the type and the byte, quotes nothing of the value, and leaves the
// buffer as it was. An error that wraps [ErrAttributes] says that a composite type
// was altered after it was registered.
//
// AppendJSON writes a type that is not registered as a JSON string of its text.
//
// # What it does not do
//
// It does not call casts to json that users define; only the server can. It does
// not validate the text of json and jsonb. It reads no types from a database by
// itself, and it keeps one version of each: to write an old row, the caller passes a
// registry with the types of that time.
package pgjson
