package route

import "walhook/schemas"

// Remedies of several reasons.
const (
	fixNothing = "nothing"
	fixEmitter = "correct the software that emits it; the log line says what is wrong"
	fixMissing = "give the column its name back, or write the new name into the catalog file"
)

// explanations are those of every reason.
var explanations = map[Reason][2]string{
	SkipNoEndpoint:   {"the account has no URL and no webhook that wants it; for most carriers the most frequent reason", fixNothing},
	SkipNoTable:      {"the catalog does not name the table", "nothing; or leave the table out of the publication, which saves the source work"},
	SkipNoOwner:      {"the record belongs to no account, such as a number in a pool: its owner is null or empty", fixNothing},
	SkipOwnerUnknown: {"walhook has never seen the parent record: most likely it was written before `setup`, or its table is not published. Or that record changed while nobody could know its owner", "publish the parent's table; the record's next change after one of its parent is sent"},
	SkipOwnerColumn:  {"the stream lacks the owner column: it was renamed, dropped, generated, or left out by a column list", fixMissing},
	SkipAccountRow:   {"a row of the account table changed while `url` or `parent` of the catalog was missing", fixMissing},
	SkipIncomparable: {"an id is not a value of the type that it refers to, or its texts do not show which values are equal", "give both columns the same type"},
	SkipNoKey:        {"the stream does not carry the record's whole key: a generated column, a column list, a null, or a replica identity without it", "`walhook doctor` names the table and prints the statement"},
	SkipTableUnknown: {"a table of the catalog has another name at the moment. Or the table, or a type, is gone and walhook never saw it: a partition that lived for less than two seconds while walhook ran, or that came and went while it did not", "write the present name into the catalog file"},
	SkipTruncate:     {"somebody truncated the table, and nobody is notified of that", "tell the accounts if they need to know"},
	SkipMessage:      {"a logical message is not JSON that walhook can read", fixEmitter},
	SkipOutsideTx:    {"a logical message was emitted outside of its transaction", "emit it with `true` as the first argument of `pg_logical_emit_message`"},
	SkipResult:       {"an async result lacks what it needs", fixEmitter},
	SkipTooLarge:     {"the event is larger than `--max-event-bytes` and became a dead letter, or the change is longer than four times that", "raise `--max-event-bytes`, or leave large columns out of the catalog"},
	SkipMalformed:    {"a rule cannot count the value", "correct the value, or the rule under `derive`"},
	SkipAccountID:    {"the account's id is longer than 1,000 bytes", "shorten it in the source"},
	SkipAccountEmpty: {"a row of the account table has an empty id: walhook knows no such account, and an empty owner means none", "give it an id in the source; what it owns counts as `no_owner`"},
	SkipOldRow:       {"an update made no derived event, because the old row says too little", "`ALTER TABLE … REPLICA IDENTITY FULL`; `walhook doctor` prints the statement"},
	SkipEvent:        {"an emitted event cannot be read", fixEmitter},
	SkipEventSize:    {"an emitted event is too large", fixEmitter},
	SkipHook:         {"an emitted event is of a hook that the catalog does not know", "correct its name, or add the hook to the catalog"},
	SkipReserved:     {"a result or an event has a name of walhook's own, or of a record", "give it another name"},
	SkipUnstorable:   {"the outbox server refuses the change", "look at the row; the record's next change is sent as usual"},
}

// Explained explains every reason.
func Explained() []schemas.Reason {
	var all []schemas.Reason
	for _, name := range Reasons() {
		e := explanations[name]
		all = append(all, schemas.Reason{Name: name, Cause: e[0], Fix: e[1]})
	}
	return all
}
