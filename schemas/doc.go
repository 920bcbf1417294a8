// Package schemas is walhook's vocabulary: where a change stands in the
// source's write-ahead log ([Position]), the shape of the table it belongs to
// ([Relation]), its rows ([Tuple]), and what a receiver is sent ([Record],
// the envelope). The catalog says which table is which schema, which fields
// it publishes and which account owns a row.
//
//	Change ──Bind──▶ Plan ──Records──▶ Record ──AppendEnvelope──▶ body
//	(WAL words)      (catalog words)              (receiver's words)
//
// Nothing here opens a connection or keeps state between changes. Values
// travel as PostgreSQL's text form and become JSON by appending bytes: no
// reflection, and no float64 anywhere near a number.
package schemas
