// Package schemas is the vocabulary that the reader of a source and the outbox
// share: what a change is, where it stands, and what is stored of it together.
//
//	         ┌── Relation: the table's shape at that moment
//	Change ──┼── Old, New Tuple: the row, value by value as PostgreSQL's text
//	         └── Position: (commit LSN, ordinal in its transaction)
//
//	Batch: changes ─── appended atomically ───▶ Checkpoint: where to resume
//
// # What it promises
//
// A [Position] orders changes as the stream does. The same change has the same
// position however often it is read, so [Position.WebhookID] is the same, too.
//
// A [Value] is absent, null, or a text. Absent means that the source did not send
// it: it is never taken for null. A value's text is the server's own; no number
// passes through a float.
//
// [KeyOf] names a record by its key so that no two keys look alike, in at most
// [MaxKeyBytes] bytes. [Equality] says when two texts are one value to the source,
// such as 7 and 7.00 of a numeric, and also when texts alone cannot tell.
//
// [Gap] and [SourceChange] are what an operator decides about: a stretch of the
// WAL whose changes may be missing, and a setting of the source that teardown
// restores.
//
// # What happens on failure
//
// There is little to fail, since nothing here opens a connection, starts a
// goroutine or remembers anything. [ParseLSN] and [ParseObject] refuse what they
// cannot read, without quoting it. [Storable] makes any text one that PostgreSQL
// can store.
//
// # What it does not do
//
// It does not know which tables are published: that is walhook/schemas/catalog. It
// writes no values as JSON: that is walhook/schemas/pgjson, whose registry of types
// a Relation carries. Events, endpoints and deliveries are the outbox's words.
package schemas
