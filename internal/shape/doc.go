// Package shape holds tests of the shape of the repository. It has no code of its own.
//
//	imports    point one way, as docs/ARCHITECTURE.md draws them; test helpers stay out of
//	           the programs
//	sessions   only internal/pgsession opens connections to a PostgreSQL
//	words      no retired word of docs/GLOSSARY.md is in identifiers or in text for people
//	path       every function on the path of one change in docs/ARCHITECTURE.md exists
//	files      every file that a doc.go names exists, with the names that follow it
package shape
