// Package pgjson writes the JSON that PostgreSQL's to_json gives for a value, byte
// for byte, from the text form in which the server prints it.
//
// It needs the standard library alone, holds no connection, and keeps nothing of
// a value.
package pgjson
