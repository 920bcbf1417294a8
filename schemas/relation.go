package schemas

import (
	"bytes"
	"strings"

	"walhook/schemas/pgjson"
)

// Relation is the shape of a table at one position in the WAL. The reader decodes a
// change by the shape that was in force when the change was made, never by the
// present catalog.
type Relation struct {
	OID       uint32
	Namespace string
	Name      string
	Identity  ReplicaIdentity
	Columns   []Column
	// PrimaryKey holds indexes into Columns, in rising order. It is empty when the
	// table has no primary key or walhook cannot know it.
	PrimaryKey []int
	// KeyCut says that the stream lacks columns of the primary key (generated ones,
	// or ones that a column list leaves out). IdentityCut says the same of the
	// columns of the replica identity's index.
	KeyCut, IdentityCut bool
	// Unknown says what neither the stream nor the source's catalog nor the outbox
	// knows about the table at that time, so that its rows cannot be read; "" when
	// nothing is missing.
	Unknown string
	// Former is the catalog table that this one was before it was renamed, provided
	// that no other table has taken that name.
	Former TableName
	// AccountIDs says how account ids compare: by the type of the account table's
	// id. OwnerIDs says how the owner column compares: by the type of the column
	// that it refers to.
	AccountIDs, OwnerIDs Equality
	// OwnerMoved says that the owner column may have been another column before, or
	// have held other values. An old row may then hold an owner that walhook never
	// used.
	OwnerMoved bool
	// Types holds the columns' types as they were at that position.
	Types *pgjson.Types
	// Partition says that the changes belong to a partition that is published under
	// its own name. Namespace and Name are those of its root.
	Partition bool
}

// Column finds a column by name; -1 when there is none.
func (r *Relation) Column(name string) int {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// Table is the relation's qualified name, without quotes.
func (r *Relation) Table() TableName {
	return TableName{Namespace: r.Namespace, Name: r.Name}
}

// ReplicaIdentity says which old values the source writes for an UPDATE or
// DELETE (PostgreSQL manual, ALTER TABLE, REPLICA IDENTITY).
type ReplicaIdentity byte

// The replica identities, by the letter of pg_class.relreplident.
const (
	IdentityDefault ReplicaIdentity = 'd' // the primary key
	IdentityIndex   ReplicaIdentity = 'i' // the columns of a named unique index
	IdentityFull    ReplicaIdentity = 'f' // the whole old row
	IdentityNothing ReplicaIdentity = 'n' // nothing
)

// Column is one column as pgoutput describes it.
type Column struct {
	Name string
	Type uint32 // OID of the type
	Key  bool   // part of the replica identity; set on every column under FULL
	// Equality says how values of the column compare with each other.
	Equality Equality
}

// charOID is the OID of char(n), which PostgreSQL calls bpchar.
const charOID = 1042

// Unpadded returns a text of the column without the trailing blanks that pad a
// char(n).
func (c Column) Unpadded(text []byte) []byte {
	if c.Equality == EqualPadded || c.Type == charOID {
		return bytes.TrimRight(text, " ")
	}
	return text
}

// TableName is a table's qualified name as the server stores it, unquoted.
type TableName struct {
	Namespace string
	Name      string
}

// String writes the name as SQL accepts it, quoted only where necessary.
func (t TableName) String() string {
	return QuoteIdent(t.Namespace) + "." + QuoteIdent(t.Name)
}

// QuoteIdent writes an identifier as SQL accepts it: unchanged when it is plain
// lower-case ASCII, otherwise in double quotes (PostgreSQL manual, Lexical
// Structure).
func QuoteIdent(name string) string {
	if isPlainIdent(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

func isPlainIdent(name string) bool {
	if name == "" || reservedWords[name] {
		return false
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// reservedWords are PostgreSQL's fully reserved key words (manual, appendix
// "SQL Key Words"), which need quotes even where they look plain.
var reservedWords = func() map[string]bool {
	const words = `all analyse analyze and any array as asc asymmetric both case cast check collate column
		constraint create current_catalog current_date current_role current_time current_timestamp current_user
		default deferrable desc distinct do else end except false fetch for foreign from grant group having in
		initially intersect into lateral leading limit localtime localtimestamp not null offset on only or order
		placing primary references returning select session_user some symmetric system_user table then to trailing
		true union unique user using variadic verbose when where window with authorization binary collation
		concurrently cross current_schema freeze full ilike inner is isnull join left like natural notnull outer
		overlaps right similar tablesample`
	set := map[string]bool{}
	for word := range strings.FieldsSeq(words) {
		set[word] = true
	}
	return set
}()
