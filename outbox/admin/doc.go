// Package admin is what the API and the operator's commands ask of the outbox: accounts'
// webhooks and tokens, enabling and disabling, holds, secrets, replays, and how
// everything stands.
//
//	api, cmd ──▶ Admin ──SQL──▶ endpoint, token, hold, request, idempotency
//	               │                │ version, inbox, request
//	               │                ▼
//	               │            outbox.Publisher: sees it before it routes the next batch
//	               └─outbox.Access─▶ what only the store knows: connections, the key,
//	                                 what is set aside, the backlog
//
// It promises:
//
//   - What it answers is committed. A change of a webhook is seen by the next append, by
//     the endpoint's sender within a second, and raises the endpoint's revision.
//   - A caller whose token has ended changes nothing: the token is checked again in the
//     transaction of the change ([Caller]).
//   - No account gets around a hold, neither with another webhook nor through a parent
//     account's token; what a hold is and does is decided in outbox.
//   - A request with an Idempotency-Key makes something once ([Once]).
//   - Lists are bounded, and read by index. A row that cannot be read is shown as far as
//     it can be, is set aside for doctor, and hides no other.
//
// Locks are taken in one order, by everybody: webhooks_version, the lock on accounts,
// endpoints in order of account and id. Statements end after five seconds.
//
// After an error nothing has changed, with one exception that says so: of
// [ErrNotConfirmed] the new secret is in force. A condition of the account's or the
// operator's is an error of its own (ErrNoEndpoint, *StateError, *outbox.HeldError);
// every other one is an error of the outbox, and the same request may succeed later
// ([outbox.IsBusy]).
//
// # Where to look
//
//	who may change what                                caller.go, Caller
//	what a webhook is, and how its URL is shown        webhook.go, Webhook and ShownURL
//	what an edit of a webhook does                     webhook_edit.go, EditWebhook
//	when an operator may enable or disable             operate.go, enableTx and disableTx
//	how a secret is rotated, and when the others end   rotate.go, RotateWebhookSecret
//	which events a replay sends                        replay.go, CountReplay
//	when a request is answered as before               once.go, onceTx
//	what status reads                                  status.go, Status
//	what is listed of events and attempts              events.go, Events; history.go, AttemptsOf
//	how another secret key takes over                  reseal.go, Reseal
//
// It sends nothing, appends nothing to the event log and reads nothing of the source; neither
// sender nor cdc knows it.
package admin
