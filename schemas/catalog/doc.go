// Package catalog says which tables are published, as what, whose their rows are,
// which events may be emitted, and which events follow from changes by rules. It
// writes the bodies that receivers get.
//
//	carrier.yaml ──Parse──▶ Catalog              TableDescription (pg_catalog, kept)
//	hooks.yaml                 │                        │ Root, Refer
//	                           └──Bind──▶ Plan ◀── schemas.Relation (the stream)
//	                                       │
//	     schemas.Tuple ────────────────────┼──▶ Key, OwnerKey   names of record and owner
//	                                       ├──▶ AppendEnvelope  body of a record's event
//	                                       ├──▶ Derive          events by rules
//	                                       ├──▶ EmittedOf       event that is no row
//	                                       └──▶ ResultOf, AccountOf
//
// # What it promises
//
// A [Catalog] is data: two are built in, and a file takes their place ([Carrier],
// [Platform]). [Parse] lists every fault of a file at once, each with its place.
// A catalog does not change once it is parsed, and any number of goroutines may
// use it.
//
// A [Plan] is a catalog bound to one shape of a table. Columns that the shape lacks
// are named in Plan.Missing and their fields are absent from bodies. A plan holds
// no state between changes: the same change gives the same bytes.
//
// A rule ([Derivation]) yields at most one event per change. It follows SQL's
// three-valued logic: where the old row was not sent, a rule may be unable to
// decide, and [Plan.Derive] counts that instead of guessing.
//
// What an account's row says of its URLs is for that account alone: a masked body
// leaves out user information and query.
//
// # Descriptions of tables
//
// A [TableDescription] is what the source's own catalog says of a table and the
// stream does not: its primary key, its types, the table that it is a partition of.
// A backlog is read when the source has moved on, so they are kept by position.
// [Catalog.Root] and [Catalog.Refer] apply them to a relation.
//
// # What happens on failure
//
// A value that is not what its type prints is an error that names table and column
// and quotes nothing. An emitted event or a result that is malformed, too large or
// not in the catalog is refused with a reason. A key or an owner that the row does
// not carry is reported as such; it is never guessed.
//
// # What it does not do
//
// It opens no connection and looks nothing up: the parent record of an owner, and
// who subscribed to an event, are the outbox's to know.
package catalog
