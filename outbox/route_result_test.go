package outbox

import (
	"testing"

	"walhook/outbox/route"
)

func TestResult_TextThatCannotBeStoredIsRefused(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	f.commit(t,
		message(`{"user_id":7,"schema":"sms","type":"up\u0000date","status":"ok"}`),
		message(`{"user_id":"\u0000","schema":"sms","type":"update","status":"ok"}`),
		message(`{"user_id":7,"schema":"sms","type":"update","status":"\u0000","verbose":"\u0000"}`))
	wantLines(t, all[string](t, f.world, "SELECT convert_from(body, 'UTF8') FROM walhook.event"),
		`{"type":"update","schema":"sms","status":"\u0000","verbose":"\u0000"}`)
	f.wantSkipped(t, map[string]int{route.SkipMessage: 1, route.SkipNoEndpoint: 1})
}
