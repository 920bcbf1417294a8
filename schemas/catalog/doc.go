// Package catalog says which tables are published, as which schemas, who owns their rows,
// which events the carrier's software may emit, and which events rules derive from changes.
// It writes the bodies that receivers get.
//
//	carrier.yaml ──Parse──▶ Catalog              TableDescription (pg_catalog, kept)
//	hooks.yaml                 │                        │ Root, Refer
//	                           └──Bind──▶ Plan ◀── schemas.Relation (the stream)
//	                                       │
//	     schemas.Tuple ────────────────────┼──▶ Key, OwnerKey   key of the record, its owner
//	                                       ├──▶ AppendEnvelope  body of a record's event
//	                                       ├──▶ Derive          derived events
//	                                       ├──▶ EmittedOf       an emitted event
//	                                       └──▶ ResultOf, AccountOf
//
// # What it promises
//
// A [Catalog] is data. Two are built in ([Carrier], [Platform]), and a file replaces them.
// [Parse] and [Read] list every error of a file at once, each with line, column, path and
// what to write instead; [File.Compare] adds what a database lacks. A catalog does not
// change after it is parsed, so any number of goroutines may use it.
//
// A [Plan] is a catalog bound to one shape of a table. Plan.Missing lists the columns that
// the shape lacks; their fields are absent from bodies. A plan keeps no state between
// changes: the same change gives the same bytes.
//
// A rule ([Derivation]) yields at most one event per change. It follows SQL's three-valued
// logic: if the source did not send the old row, a rule may be unknown. [Plan.Derive] counts
// these rules and does not guess.
//
// The URLs in an account's row are for that account only. A masked body has them without
// user information, query and fragment.
//
// # Descriptions of tables
//
// A [TableDescription] is what the source's system catalog says about a table and the stream
// does not: its primary key, its types, the table that it is a partition of. The source may
// have changed before walhook reads a backlog, so the outbox keeps descriptions by position.
// [Catalog.Root] and [Catalog.Refer] apply them to a relation.
//
// # What happens on failure
//
// A value that is not what its type prints is an error that names table and column and
// quotes nothing. An emitted event or a result that is malformed, too large or not in the
// catalog is an error with its reason. A key or an owner that the row does not carry is
// reported as such, never guessed.
//
// # Where to look
//
//	the format of a catalog file                     read.go, parse.go, catalog.go
//	what an error of it says, "did you mean"         fault.go, didYouMean
//	whether a file fits a database                   check.go, Compare
//	a draft of a file, and what keeps it up to date  draft.go, update.go, sheet.go
//	which columns identify a record                  plan.go, bindKey
//	which fields a body has, in which order          plan.go, AppendEnvelope; carrier.yaml
//	which names nobody outside may use               own_names.go, Reserved
//	emitted events: fields, types, targets           hook.go, hook_event.go, hooks.yaml
//	derived events: rules, cases, counts             derive.go, derive_match.go, derive_event.go
//	async results                                    result.go
//	what parent accounts do not see of a URL         mask.go
//	what account users are told, with examples       describe.go, event_type.go, json_schema.go
//	how a table was, when its change was made        table_description.go
//
// # What it does not do
//
// It opens no connection and looks nothing up. Package outbox knows the owner of a parent
// record and the recipients of an event.
package catalog
