package outbox

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// stateLineSQL names the state of an endpoint, why nothing is sent to it, who holds the
// next URL for which reason, and who has it disabled once the operator's word ends.
const stateLineSQL = `SELECT state || CASE WHEN state = 'disabled' THEN ' by ' || disabled_by ELSE '' END || coalesce(': ' || nullif(reason, ''), '')
	|| CASE WHEN disabled_reason <> '' AND (state <> 'disabled' OR disabled_reason <> reason) THEN ', next by ' || disabled_by || ': ' || disabled_reason ELSE '' END
	|| CASE WHEN also_disabled_by || also_disable_reason <> '' THEN ', also by ' || also_disabled_by || ': ' || also_disable_reason ELSE '' END
	FROM walhook.endpoint WHERE id = $1`

// Each step from each state, by the statements that take it.
func TestEndpointState_EveryStepFromEveryState(t *testing.T) {
	const (
		byOperator = iota // an operator disables it
		byAccount         // the account does
		enable            // the one or the other enables it
		fail              // 410, or failing for long
		urlGood
		urlBad
		urlGone
		hold     // a hold of the account, right after a URL
		release  // the end of an operator's word
		alsoOff  // the account disables what an operator disabled
		alsoElse // another URL by the API under an operator's word
		steps
	)
	names := [steps]string{"the operator disables", "the account disables", "enable", "walhook gives up", "a URL", "an unusable URL", "no URL", "a hold", "the hold ends", "the account disables below it", "another URL below it"}
	own := func(state EndpointState) func(w *world, t *testing.T, id int64, account string) {
		return func(w *world, t *testing.T, _ int64, account string) {
			url, reason := map[EndpointState]string{EndpointActive: urlB, EndpointUnusable: "ftp://example.com/"}[state], "new"
			if state == EndpointActive {
				reason = ""
			}
			w.exec(t, writeEndpointSQL, account, "kept", time.Hour, "whsec_eA==", url, string(state), reason, 0, false)
		}
	}
	under := func(sql string, more ...any) func(w *world, t *testing.T, id int64, account string) {
		return func(w *world, t *testing.T, id int64, _ string) {
			w.exec(t, sql+" AND disabled_by = 'operator'", append([]any{id}, more...)...)
		}
	}
	take := [steps]func(w *world, t *testing.T, id int64, account string){
		byOperator: func(w *world, t *testing.T, id int64, _ string) { w.exec(t, disabledBySQL, id, ByOperator, "new") },
		byAccount:  func(w *world, t *testing.T, id int64, _ string) { w.exec(t, disabledBySQL, id, ByAccount, "new") },
		enable:     func(w *world, t *testing.T, id int64, _ string) { w.exec(t, disabledBySQL, id, "", "") },
		fail:       func(w *world, t *testing.T, id int64, _ string) { w.exec(t, disableSQL, id, 1, "new") },
		urlGood:    own(EndpointActive),
		urlBad:     own(EndpointUnusable),
		urlGone:    own(EndpointCleared),
		hold: func(w *world, t *testing.T, _ int64, account string) {
			w.exec(t, "INSERT INTO walhook.hold (account, host, reason) VALUES ($1, '', 'new')", account)
			w.exec(t, holdURLSQL, account, "")
		},
		release:  under(releaseSQL[:strings.LastIndex(releaseSQL, "RETURNING")]),
		alsoOff:  under("UPDATE walhook.endpoint SET "+AlsoByAccountSQL+" WHERE id = $1", "new"),
		alsoElse: under("UPDATE walhook.endpoint SET " + AlsoMovedSQL + " WHERE id = $1"),
	}
	w := newWorld(t)
	for i, c := range []struct {
		from                       string
		state                      EndpointState
		by, reason, disabledReason string
		alsoBy, alsoReason         string
		to                         [steps]string
	}{
		{"active", EndpointActive, "", "", "", "", "", [steps]string{
			"disabled by operator: new", "disabled by account: new", "active", "disabled by walhook: new",
			"active", "unusable: new", "cleared: new", "disabled by operator: new", "active", "active", "active"}},
		{"disabled by walhook: old", EndpointDisabled, ByWalhook, "old", "", "", "", [steps]string{
			"disabled by operator: new, also by walhook: old", "disabled by account: new", "active", "disabled by walhook: old",
			"active", "unusable: new", "cleared: new", "disabled by walhook: old", "disabled by walhook: old", "disabled by walhook: old", "disabled by walhook: old"}},
		{"disabled by operator: old", EndpointDisabled, ByOperator, "old", "old", "", "", [steps]string{
			"disabled by operator: new", "disabled by account: new", "active", "disabled by operator: old",
			"disabled by operator: old", "unusable: new, next by operator: old", "cleared: new, next by operator: old", "disabled by operator: old",
			"active", "disabled by operator: old, also by account: new", "disabled by operator: old"}},
		{"disabled by operator: old, also by walhook: gone", EndpointDisabled, ByOperator, "old", "old", ByWalhook, "gone", [steps]string{
			"disabled by operator: new, also by walhook: gone", "disabled by account: new", "active", "disabled by operator: old, also by walhook: gone",
			"disabled by operator: old", "unusable: new, next by operator: old", "cleared: new, next by operator: old", "disabled by operator: old, also by walhook: gone",
			"disabled by walhook: gone", "disabled by operator: old, also by walhook: gone", "disabled by operator: old"}},
		{"disabled by operator: old, also by account: word", EndpointDisabled, ByOperator, "old", "old", ByAccount, "word", [steps]string{
			"disabled by operator: new, also by account: word", "disabled by account: new", "active", "disabled by operator: old, also by account: word",
			"disabled by operator: old, also by account: word", "unusable: new, next by operator: old, also by account: word",
			"cleared: new, next by operator: old, also by account: word", "disabled by operator: old, also by account: word",
			"disabled by account: word", "disabled by operator: old, also by account: word", "disabled by operator: old, also by account: word"}},
		{"disabled by account: old", EndpointDisabled, ByAccount, "old", "old", "", "", [steps]string{
			"disabled by operator: new, also by account: old", "disabled by account: new", "active", "disabled by account: old",
			"disabled by account: old", "unusable: new, next by account: old", "cleared: new, next by account: old", "disabled by account: old",
			"disabled by account: old", "disabled by account: old", "disabled by account: old"}},
		{"cleared: old", EndpointCleared, "", "old", "", "", "", [steps]string{
			"cleared: old, next by operator: new", "cleared: old, next by account: new", "cleared: old", "cleared: old",
			"active", "unusable: new", "cleared: new", "cleared: old", "cleared: old", "cleared: old", "cleared: old"}},
		{"cleared: old, next by operator: word", EndpointCleared, ByOperator, "old", "word", "", "", [steps]string{
			"cleared: old, next by operator: new", "cleared: old, next by account: new", "cleared: old", "cleared: old, next by operator: word",
			"disabled by operator: word", "unusable: new, next by operator: word", "cleared: new, next by operator: word", "cleared: old, next by operator: word",
			"cleared: old", "cleared: old, next by operator: word, also by account: new", "cleared: old, next by operator: word"}},
		// As a process of an older release leaves it, which clears the URL only.
		{"cleared: old, next by operator: word, also by walhook: gone", EndpointCleared, ByOperator, "old", "word", ByWalhook, "gone", [steps]string{
			"cleared: old, next by operator: new, also by walhook: gone", "cleared: old, next by account: new", "cleared: old", "cleared: old, next by operator: word, also by walhook: gone",
			"disabled by operator: word", "unusable: new, next by operator: word", "cleared: new, next by operator: word", "cleared: old, next by operator: word, also by walhook: gone",
			"cleared: old", "cleared: old, next by operator: word, also by walhook: gone", "cleared: old, next by operator: word"}},
		{"unusable: old", EndpointUnusable, "", "old", "", "", "", [steps]string{
			"unusable: old, next by operator: new", "unusable: old, next by account: new", "unusable: old", "unusable: old",
			"active", "unusable: new", "cleared: new", "unusable: old", "unusable: old", "unusable: old", "unusable: old"}},
		{"unusable: old, next by account: word", EndpointUnusable, ByAccount, "old", "word", "", "", [steps]string{
			"unusable: old, next by operator: new, also by account: word", "unusable: old, next by account: new", "unusable: old", "unusable: old, next by account: word",
			"disabled by account: word", "unusable: new, next by account: word", "cleared: new, next by account: word", "unusable: old, next by account: word",
			"unusable: old, next by account: word", "unusable: old, next by account: word", "unusable: old, next by account: word"}},
		{"unusable: old, next by operator: word, also by account: own", EndpointUnusable, ByOperator, "old", "word", ByAccount, "own", [steps]string{
			"unusable: old, next by operator: new, also by account: own", "unusable: old, next by account: new", "unusable: old", "unusable: old, next by operator: word, also by account: own",
			"disabled by operator: word, also by account: own", "unusable: new, next by operator: word, also by account: own",
			"cleared: new, next by operator: word, also by account: own", "unusable: old, next by operator: word, also by account: own",
			"unusable: old, next by account: own", "unusable: old, next by operator: word, also by account: own", "unusable: old, next by operator: word, also by account: own"}},
	} {
		for step, want := range c.to {
			account := fmt.Sprint(i, "/", step)
			url := urlA
			if c.state == EndpointCleared {
				url = ""
			}
			id := one[int64](t, w, `INSERT INTO walhook.endpoint (account, url, state, disabled_by, reason, disabled_reason, also_disabled_by, also_disable_reason, secret)
				VALUES ($1, nullif($2, ''), $3, $4, $5, $6, $7, $8, 'whsec_eA==') RETURNING id`, account, url, string(c.state), c.by, c.reason, c.disabledReason, c.alsoBy, c.alsoReason)
			if got := one[string](t, w, stateLineSQL, id); got != c.from {
				t.Fatalf("it begins as %q, want %q", got, c.from)
			}
			take[step](w, t, id, account)
			if got := one[string](t, w, stateLineSQL, id); got != want {
				t.Errorf("%s, %s: %q, want %q", c.from, names[step], got, want)
			}
		}
	}
}

// The two statements that do the same otherwise: a snapshot in which an account has no
// URL, and the end of a webhook.
func TestEndpointState_ASnapshotWithoutAURLAndADeletedWebhookClearIt(t *testing.T) {
	w := newWorld(t)
	for from, c := range map[string]struct{ by, word, cleared string }{
		"nobody":       {"", "", "cleared: new"},
		"walhook":      {ByWalhook, "", "cleared: new"},
		"the operator": {ByOperator, "old", "cleared: new, next by operator: old"},
		"the account":  {ByAccount, "old", "cleared: new, next by account: old"},
	} {
		make := func(webhook string) int64 {
			return one[int64](t, w, `INSERT INTO walhook.endpoint (account, webhook, url, state, disabled_by, reason, disabled_reason, secret)
				VALUES ($1, $2, $3, CASE WHEN $4 = '' THEN 'active' ELSE 'disabled' END, $4, CASE WHEN $4 = '' THEN '' ELSE 'old' END, $5, 'whsec_eA==') RETURNING id`,
				from, webhook, urlA, c.by, c.word)
		}
		own, webhook := make(AccountWebhook), make("a")
		if c.by == ByOperator { // after a 410, which the next URL has not given
			w.exec(t, "UPDATE walhook.endpoint SET also_disabled_by = 'walhook', also_disable_reason = 'gone' WHERE id IN ($1, $2)", own, webhook)
		}
		w.exec(t, "UPDATE walhook.endpoint SET "+clearedSQL+" WHERE id = $2", "new", own)
		if got := one[string](t, w, stateLineSQL, own); got != c.cleared {
			t.Errorf("disabled by %s, no URL in a snapshot: %q, want %q", from, got, c.cleared)
		}
		w.exec(t, "UPDATE walhook.endpoint SET "+DeletedSQL+"$1 WHERE id = $2", "new", webhook)
		if got := one[string](t, w, stateLineSQL, webhook); got != "cleared: new" {
			t.Errorf("disabled by %s, deleted: %q", from, got)
		}
	}
}

// What a URL asks for, whoever brings it.
func TestEndpointState_OfAURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]EndpointState{"": EndpointCleared, urlA: EndpointActive, "ftp://example.com/": EndpointUnusable, "nothing": EndpointUnusable} {
		state, reason := stateOfURL(url)
		if state != want || (reason == "") != (state == EndpointActive) {
			t.Errorf("%q asks for %s: %s; want %s", url, state, reason, want)
		}
	}
}
