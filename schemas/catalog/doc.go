// Package catalog says which tables are published, as what and whose their rows
// are, which events may be emitted, and which follow from changes by rules. It
// binds itself to the shape of a table and writes the bodies that receivers get.
//
//	Relation ──Bind──▶ Plan ──Key, OwnerKey──▶ names of the record and its owner
//	                        └─AppendEnvelope─▶ body
package catalog
