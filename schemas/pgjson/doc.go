// Package pgjson writes the JSON that PostgreSQL's to_json gives for a value, byte
// for byte, from the text that the server's output function prints for it.
//
//	pg_type ──TypesQuery──▶ TypeRow ──Types.Add──▶ Types
//	                                                 │
//	value's text ────────────Types.AppendJSON────────┴──▶ JSON, appended to a buffer
//
// # What it promises
//
// [Types] knows the built-in types of PostgreSQL 14 to 18. Enums, domains,
// composites, ranges and hstore are read from a database by [TypesQuery], which
// needs no privilege. For every type that [Types.Known] affirms, the result is the
// server's own; tests compare it with a server, over random values of random
// types.
//
// It appends bytes to the caller's buffer and reads no number into a float: a
// numeric keeps every digit. It needs the standard library alone.
//
// The text has to be printed under the settings that [Types.AppendJSON] lists; the
// reader pins them on its connection.
//
// # What happens on failure
//
// A text that its type does not print is a [*ValueError], which names the type and
// the byte and quotes nothing of the value. One that wraps [ErrAttributes] says
// that a composite type was altered since it was registered. The buffer is
// returned as it came.
//
// A type that is not registered is written as a JSON string of its text.
//
// # What it does not do
//
// It does not call casts to json that users define: only the server can. It does
// not validate the text of json and jsonb. It does not learn types by itself, and
// it keeps no version of them: whoever reads an old row brings the types of its
// time.
package pgjson
