package outbox

import (
	"walhook/outbox/address"
	"walhook/outbox/route"
)

// EndpointState says whether an endpoint is sent to. doc.go draws the states and what
// leads from one to another; this file decides each step.
type EndpointState string

// The states of an endpoint.
const (
	EndpointActive   EndpointState = "active"
	EndpointCleared  EndpointState = "cleared"  // the account took its URL away
	EndpointUnusable EndpointState = "unusable" // the URL cannot be used; Reason says why
	EndpointDisabled EndpointState = "disabled" // held: nothing is sent, nothing is lost until retention ends
)

// EndpointStates are all of them.
func EndpointStates() []EndpointState {
	return []EndpointState{EndpointActive, EndpointCleared, EndpointUnusable, EndpointDisabled}
}

// Who disables an endpoint. What the operator or the account disabled stays so for the
// next URL; what walhook disabled is forgotten with the URL that it was about.
const (
	ByWalhook  = "walhook"
	ByOperator = "operator"
	ByAccount  = "account"
)

// The reasons of endpoints that are not sent to, as people see them.
const (
	reasonCleared  = "the account has no webhook URL"
	reasonEnded    = "the account was deleted"
	reasonUnknown  = "the account changed while its table lacked the webhook URL column: its URL is unknown"
	reasonUnstored = "a change of the account cannot be stored in the outbox, so its URL is unknown: correct the row in the source"
)

// stateOfChange is the state that a plan's change of an account's URL asks for, and why.
func stateOfChange(w *route.EndpointWrite) (state EndpointState, reason string) {
	switch w.Change {
	case route.URLCleared:
		return EndpointCleared, reasonCleared
	case route.URLUnknown:
		return EndpointUnusable, reasonUnknown
	case route.URLUnstored:
		return EndpointUnusable, reasonUnstored
	}
	return stateOfURL(w.URL)
}

// stateOfURL is the state that a URL asks for, and why; "" is none.
func stateOfURL(url string) (state EndpointState, reason string) {
	if url == "" {
		return EndpointCleared, reasonCleared
	}
	if reason = address.URLFault(url); reason != "" {
		return EndpointUnusable, reason
	}
	return EndpointActive, ""
}

// The steps, each as what an UPDATE of an endpoint sets. The server takes them, since a
// commit sends its statements before it has an answer. A row has its state and reason;
// who disabled it, disabled_by; and, where that is the operator or the account, their
// reason in disabled_reason, which also waits for the next URL while the state is
// cleared or unusable. An operator's word lies over that of walhook or the account, which
// also_disabled_by and also_disable_reason keep until it ends. They mean nothing where
// disabled_by is not the operator: a process of an older release leaves them behind.
const (
	// DisabledBySQL is the step of $2, who disables an endpoint for the reason $3; both
	// are '' for enabling it, whoever has it disabled. Without a URL that can be used it
	// keeps its state.
	DisabledBySQL = `
			also_disabled_by = CASE WHEN $2 <> 'operator' THEN '' WHEN disabled_by = 'operator' THEN also_disabled_by ELSE disabled_by END,
			also_disable_reason = CASE WHEN $2 <> 'operator' THEN ''
				WHEN disabled_by = 'operator' THEN also_disable_reason
				WHEN disabled_by = 'walhook' THEN reason ELSE disabled_reason END,
			disabled_by = $2, disabled_reason = $3,
			reason = CASE WHEN state IN ('active', 'disabled') THEN $3 ELSE reason END,
			state = CASE WHEN state NOT IN ('active', 'disabled') THEN state WHEN $2 = '' THEN 'active' ELSE 'disabled' END`

	// releasedSQL is the step of the end of an operator's word: to active, or to what the
	// account or walhook has disabled. walhook disables only what has a URL that can be used.
	releasedSQL = `
			disabled_by = CASE WHEN also_disabled_by = 'walhook' AND state <> 'disabled' THEN '' ELSE also_disabled_by END,
			disabled_reason = CASE WHEN also_disabled_by = 'account' THEN also_disable_reason ELSE '' END,
			reason = CASE WHEN state IN ('active', 'disabled') THEN also_disable_reason ELSE reason END,
			state = CASE WHEN state NOT IN ('active', 'disabled') THEN state WHEN also_disabled_by = '' THEN 'active' ELSE 'disabled' END,
			also_disabled_by = '', also_disable_reason = ''`

	// AlsoByAccountSQL is the step of the account, for the reason $2, that disables what an
	// operator has disabled: it stays so once the operator's word ends. What the account or
	// walhook has disabled already stays as it is.
	AlsoByAccountSQL = `
			also_disabled_by = CASE WHEN also_disabled_by = '' THEN 'account' ELSE also_disabled_by END,
			also_disable_reason = CASE WHEN also_disabled_by = '' THEN $2 ELSE also_disable_reason END`

	// AlsoMovedSQL is the step of another URL under an operator's word: what walhook
	// disabled was about the URL before.
	AlsoMovedSQL = `
			also_disabled_by = CASE WHEN also_disabled_by = 'walhook' THEN '' ELSE also_disabled_by END,
			also_disable_reason = CASE WHEN also_disabled_by = 'walhook' THEN '' ELSE also_disable_reason END`

	// failedSQL is the step of walhook, for the reason $3, of an endpoint that is active.
	failedSQL = `state = 'disabled', disabled_by = 'walhook', reason = $3`

	// urlStateSQL is the step to the state that a URL asks for, excluded.state, of an
	// endpoint e.
	urlStateSQL = `
			state = CASE WHEN e.disabled_reason <> '' AND excluded.state = 'active' THEN 'disabled' ELSE excluded.state END,
			disabled_by = CASE WHEN e.disabled_reason <> '' THEN e.disabled_by ELSE '' END,
			reason = CASE WHEN e.disabled_reason <> '' AND excluded.state = 'active' THEN e.disabled_reason ELSE excluded.reason END,
			also_disabled_by = CASE WHEN e.also_disabled_by = 'walhook' THEN '' ELSE e.also_disabled_by END,
			also_disable_reason = CASE WHEN e.also_disabled_by = 'walhook' THEN '' ELSE e.also_disable_reason END`

	// clearedSQL is urlStateSQL for no URL, with the reason $1.
	clearedSQL = `url = NULL, state = 'cleared', disabled_by = CASE WHEN disabled_reason <> '' THEN disabled_by ELSE '' END, reason = $1,` + AlsoMovedSQL

	// DeletedSQL is the last step, of a webhook that is deleted; the reason follows.
	DeletedSQL = `deleted_at = clock_timestamp(), url = NULL, header_names = '{}', header_values = '{}', state = 'cleared', disabled_by = '', disabled_reason = '', also_disabled_by = '', also_disable_reason = '', reason = `

	// heldURLSQL is DisabledBySQL of a hold h, right after urlStateSQL in the same
	// transaction, of an endpoint that is active.
	heldURLSQL = `state = 'disabled', disabled_by = 'operator', reason = h.reason, disabled_reason = h.reason, also_disabled_by = '', also_disable_reason = ''`
)

// disabledBySQL takes the step of DisabledBySQL for the endpoint $1.
const disabledBySQL = `
	UPDATE walhook.endpoint SET ` + DisabledBySQL + `, revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
	WHERE id = $1`

// heldForSQL is disabledBySQL where the reason is another one.
const heldForSQL = disabledBySQL + ` AND disabled_reason <> $3`
