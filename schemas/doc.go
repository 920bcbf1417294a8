// Package schemas is the vocabulary that cdc and outbox share: a change, its position, and
// what is stored of both together.
//
//	         ┌── Relation: the table's shape at that time
//	Change ──┼── Old, New Tuple: the row, each value as PostgreSQL's text
//	         └── Position: (commit LSN, ordinal in its transaction)
//
//	Batch: changes ─── appended atomically ───▶ Checkpoint: where to resume
//
// # What it promises
//
// A [Position] orders changes as the stream does. The same change always has the same
// position, so [Position.WebhookID] is always the same, too.
//
// A [Value] is absent, null, or a text. Absent means that the source did not send it; no
// code treats it as null. The text is the server's own; no number passes through a float.
//
// [KeyOf] builds the key of a record so that no two keys collide, in at most [MaxKeyBytes]
// bytes. [Equality] says which texts are the same value to the source, such as 7 and 7.00
// of a numeric, and for which types texts alone do not show that.
//
// [Gap] and [SourceChange] are for the operator: a stretch of the WAL whose changes walhook
// may never see, and a setting of the source that teardown restores.
//
// # What happens on failure
//
// Little can fail, since nothing here opens a connection, starts a goroutine or keeps state.
// [ParseLSN] and [ParseObject] reject what they cannot parse; ParseObject does not quote
// it. [Storable] turns any text into one that PostgreSQL can store.
//
// # Where to look
//
//	the identity and order of changes, webhook-ids   position.go
//	what a row and a change are                      change.go, relation.go
//	which ids and keys are the same value            equality.go
//	the key of a record, and its bounds              key.go
//	where a reader resumes                           checkpoint.go
//	which logical messages walhook takes             message.go
//	JSON objects in order, form encoding             object.go
//
// # What it does not do
//
// It does not know which tables are published; that is walhook/schemas/catalog. It does not
// write values as JSON; that is walhook/schemas/pgjson, whose registry of types a Relation
// carries. Events, endpoints and deliveries belong to package outbox.
package schemas
