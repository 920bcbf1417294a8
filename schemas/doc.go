// Package schemas is the vocabulary of those who read changes and those who keep
// them: where a change stands in the source's write-ahead log ([Position]), the
// shape of the table it belongs to ([Relation]), its rows ([Tuple]), and what is
// stored together ([Batch], [Checkpoint]).
//
// Which table is published as what is in the package catalog; how a value becomes
// JSON in the package pgjson.
//
// Nothing here opens a connection or keeps state between changes.
package schemas
