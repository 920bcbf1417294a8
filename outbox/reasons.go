package outbox

import (
	"walhook/outbox/route"
	"walhook/schemas"
)

// The reasons of dead letters that no attempt gave.
const (
	deadExpired   = "expired"   // of an earlier feed of the endpoint
	deadRetention = "retention" // older than retention
	deadTooLarge  = "too_large" // larger than Config.MaxEventBytes
)

const (
	fixReplay = "nothing, or send it again (`walhook replay`)"
	fixDamage = "look for damage (`pg_amcheck`); the source still has the record"
)

// Explanations are the reasons that the outbox gives, by what they are about.
type Explanations struct {
	Skipped     []schemas.Reason // changes that made no event, or reached nobody
	Aside       []schemas.Reason // items that a loop sets aside
	DeadLetters []schemas.Reason // beside those of attempts
	States      []schemas.Reason // of endpoints
	Endpoints   []schemas.Reason // in words: why an endpoint gets nothing
}

// Explain explains every reason of the outbox.
func Explain() Explanations {
	return Explanations{
		Skipped: route.Explained(),
		Aside: []schemas.Reason{
			{Name: asideUnstorable, Cause: "the outbox server refuses to store the item", Fix: "`walhook.set_aside` has the SQLSTATE; correct the item in the source, or delete it"},
			{Name: asideUnreadable, Cause: "what is stored of the item cannot be read", Fix: fixDamage},
			{Name: asideSecret, Cause: "walhook cannot decrypt the endpoint's secret, the password of its URL, or the value of a header", Fix: "start walhook with the `--secret-key` that encrypted it; or rotate the secret and set URL and headers again"},
			{Name: asideForm, Cause: "the secret in the account's column is not `whsec_` and the base64 of a key", Fix: "correct it there, or clear the column for a secret that walhook generates"},
			{Name: asideHost, Cause: "the URL's host is, in whatever form, an address that is not public, the port is not allowed, or the host is not a name", Fix: "allow the network (`--allow-cidr`) or port (`--allow-ports`) and restart, or ask the account for another URL"},
		},
		DeadLetters: []schemas.Reason{
			{Name: deadExpired, Cause: "the account cleared its URL, or ended, before the event was delivered", Fix: fixReplay},
			{Name: deadRetention, Cause: "retention ended before the event was delivered", Fix: fixReplay + "; a longer `--retention` keeps events for longer"},
			{Name: deadTooLarge, Cause: "the event is larger than `--max-event-bytes`", Fix: "raise `--max-event-bytes`; the record's next change is sent as usual"},
			{Name: asideUnstorable, Cause: "the outbox server refuses to store what became of its attempt", Fix: fixReplay},
			{Name: asideUnreadable, Cause: "the event in the event log cannot be read", Fix: fixDamage},
		},
		States: []schemas.Reason{
			{Name: string(EndpointActive), Cause: "walhook sends to it", Fix: "nothing"},
			{Name: string(EndpointCleared), Cause: "the account has no URL", Fix: "nothing: it begins again when the account sets one"},
			{Name: string(EndpointUnusable), Cause: "its URL or its secret is of no use; its events wait until retention ends", Fix: "the reason beside it says what to correct; delivery resumes by itself"},
			{Name: string(EndpointDisabled), Cause: "it answered 410 (`gone`), it has only failed for five days (`failing`), or the operator or the account disabled it; its events wait until retention ends", Fix: "`walhook endpoints enable` starts it again, once its receiver works"},
		},
		Endpoints: []schemas.Reason{
			{Name: reasonCleared, Cause: "the column of the URL is null or empty", Fix: "nothing"},
			{Name: reasonEnded, Cause: "the account's row is gone", Fix: "nothing; what was appended before is still delivered"},
			{Name: reasonUnknown, Cause: "`account.url` names a column that the table lacked at that moment", Fix: "give the column its name back, or correct the catalog file; then change the account's row once"},
			{Name: reasonUnstored, Cause: "the outbox server refuses the account's row", Fix: "correct the row in the source"},
			{Name: reasonForm, Cause: "the catalog's `account.secret` has such a value", Fix: "correct it in the source"},
			{Name: reasonSecret, Cause: "`--secret-key` is another one than before, or missing", Fix: "start walhook with the former key; `walhook endpoints reseal` changes it"},
			{Name: ReasonUnreadable, Cause: "its row in the outbox is damaged", Fix: "`walhook doctor`"},
		},
	}
}
