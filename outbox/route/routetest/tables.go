// Package routetest is the small carrier that the tests of routing and of the
// outbox share: its catalog, its tables as the stream describes them, and changes
// of their rows.
package routetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// Catalog has one of each kind: an account table with its own secrets, records that
// are owned directly, through a parent and through a parent's parent, and results.
const Catalog = `
account: {table: users, id: id, url: web_hook_url, parent: reseller_id, secret: web_hook_secret}
schemas:
  users: {table: users, owner: id, fields: [id, name, web_hook_url]}
  dids: {table: dids, owner: user_id, fields: [id, user_id, number]}
  faxes: {table: faxes, owner: {column: did_id, schema: dids}, fields: [id, did_id, pages]}
  pages: {table: pages, owner: {column: fax_id, schema: faxes}, fields: [id, fax_id]}
  notes: {table: notes, owner: user_id, fields: [id, note]}
results: {table: async_results}
events: {table: events}
`

const (
	oidInt  = 23
	oidText = 25
)

// The tables of the small catalog as the stream describes them. notes has the
// default replica identity: its old rows hold the key at most.
var (
	Users   = NewTable("users", 'f', "id name web_hook_url web_hook_secret")
	Dids    = NewTable("dids", 'f', "id user_id number")
	Faxes   = NewTable("faxes", 'f', "id did_id pages")
	Pages   = NewTable("pages", 'f', "id fax_id")
	Notes   = NewTable("notes", 'd', "id user_id note")
	Results = NewTable("async_results", 'd', "id user_id schema type status verbose")
	Ghosts  = NewTable("ghosts", 'f', "id")
)

// Table is a table as the stream describes it.
type Table struct{ Relation *schemas.Relation }

// NewTable is a table whose key is its first column. That column and those that end
// in _id are integers, and all others text.
func NewTable(name string, identity schemas.ReplicaIdentity, columns string) Table {
	r := &schemas.Relation{Namespace: "public", Name: name, Identity: identity, PrimaryKey: []int{0}, Types: pgjson.NewTypes()}
	for i, column := range strings.Fields(columns) {
		typ := uint32(oidText)
		if i == 0 || strings.HasSuffix(column, "_id") {
			typ = oidInt
		}
		r.Columns = append(r.Columns, schemas.Column{Name: column, Type: typ, Key: i == 0 || identity == 'f'})
	}
	return Table{r}
}

// OfText is the table with columns of text alone.
func (tb Table) OfText() Table {
	relation := *tb.Relation
	relation.Columns = slices.Clone(relation.Columns)
	for i := range relation.Columns {
		relation.Columns[i].Type = oidText
	}
	return Table{&relation}
}

// NotSent stands for a value that the change does not carry.
const NotSent = "\x00"

// Row returns a tuple of the texts of its values; nil is NULL.
func Row(values ...any) schemas.Tuple {
	tuple := make(schemas.Tuple, len(values))
	for i, value := range values {
		switch text := fmt.Sprint(value); {
		case value == nil:
			tuple[i].State = schemas.Null
		case text != NotSent:
			tuple[i] = schemas.Value{State: schemas.Text, Text: []byte(text)}
		}
	}
	return tuple
}

// Insert is a new row.
func (tb Table) Insert(values ...any) schemas.Change {
	return schemas.Change{Kind: schemas.Insert, Relation: tb.Relation, New: Row(values...)}
}

// Update is a changed row; old is nil where the change does not carry it.
func (tb Table) Update(old, new schemas.Tuple) schemas.Change {
	return schemas.Change{Kind: schemas.Update, Relation: tb.Relation, Old: old, New: new}
}

// Delete is a deleted row, with the columns that its replica identity keeps.
func (tb Table) Delete(values ...any) schemas.Change {
	return schemas.Change{Kind: schemas.Delete, Relation: tb.Relation, Old: Row(values...)}
}

// Truncate is a TRUNCATE of it.
func (tb Table) Truncate() schemas.Change {
	return schemas.Change{Kind: schemas.Truncate, Relation: tb.Relation}
}

// Message is a logical message of walhook's prefix.
func Message(content string) schemas.Change {
	return schemas.Change{Kind: schemas.Message, Prefix: schemas.MessagePrefix, Content: []byte(content), Transactional: true}
}

// Account inserts an account with the URL https://example.com/<id>.
func Account(id int) schemas.Change {
	return Users.Insert(id, "n", fmt.Sprint("https://example.com/", id), nil)
}

// The account table with the column of the account above, and its rows.
var Members = NewTable("users", 'f', "id name web_hook_url web_hook_secret reseller_id")

// Member is an account below parent; nil for below nobody.
func Member(id int, parent any) schemas.Tuple {
	return Row(id, "n", fmt.Sprint("https://example.com/", id), nil, parent)
}

// MemberInsert is a new account below parent.
func MemberInsert(id int, parent any) schemas.Change {
	return schemas.Change{Kind: schemas.Insert, Relation: Members.Relation, New: Member(id, parent)}
}

// Two URLs of receivers.
const (
	URLA = "https://a.example.com/"
	URLB = "https://b.example.com/"
)

// SetURL changes the URL of an account.
func SetURL(id int, from, to any) schemas.Change {
	return Users.Update(Row(id, "n", from, nil), Row(id, "n", to, nil))
}

// Tx makes changes those of one committed transaction.
func Tx(commit schemas.LSN, changes ...schemas.Change) []schemas.Change {
	for i := range changes {
		changes[i].Position = schemas.Position{Commit: commit, Ordinal: int64(i + 1)}
		changes[i].CommittedAt = time.Unix(1_700_000_000, 0)
	}
	return changes
}

// Batch joins transactions as the reader hands them over.
func Batch(transactions ...[]schemas.Change) schemas.Batch {
	var b schemas.Batch
	for _, changes := range transactions {
		b.Changes = append(b.Changes, changes...)
	}
	b.Position = b.Changes[len(b.Changes)-1].Position
	b.Flush, b.Xid = b.Position.Commit+8, 700
	return b
}
