package outbox

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
)

func TestResult_ComesEitherWay(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	f.forget(t)
	f.commit(t,
		results.insert(1, 7, "sms_enablement", "update", "error", "already provisioned"),
		message(`{"user_id":7,"schema":"sms_enablement","type":"update","status":"ok"}`),
		message(`{"user_id":"8","schema":"porting","type":"insert","status":"ok","verbose":"<b>"}`),
		dids.insert(1, 7, "312"))
	bodies := all[string](t, f.world, `SELECT p.account || ' ' || record || ' ' || substring(webhook_id FROM 21) || ' ' || schema || ' ' || type || ' ' || convert_from(body, 'UTF8')
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
	wantLines(t, bodies[:min(3, len(bodies))],
		`7 result/sms_enablement _1 sms_enablement update {"type":"update","schema":"sms_enablement","status":"error","verbose":"already provisioned"}`,
		`7 result/sms_enablement _2 sms_enablement update {"type":"update","schema":"sms_enablement","status":"ok","verbose":""}`,
		`8 result/porting _3 porting insert {"type":"insert","schema":"porting","status":"ok","verbose":"<b>"}`)
	f.wantSkipped(t, map[string]int{})
}

func TestResult_OnlyInsertsCount(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	f.commit(t,
		results.update(nil, row(1, 7, "sms_enablement", "update", "ok", nil)),
		results.delete(1, notSent, notSent, notSent, notSent, notSent),
		results.truncate(),
		message(`{"user_id":9,"schema":"sms_enablement","type":"update","status":"ok"}`))
	wantLines(t, f.events(t))
	f.wantSkipped(t, map[string]int{route.SkipNoEndpoint: 1, route.SkipTruncate: 1})
}

func TestResult_WhatIsRefusedIsListedAndTheFeedGoesOn(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	outside := message(`{"user_id":7,"schema":"sms","type":"update","status":"ok"}`)
	outside.Transactional = false
	f.commit(t, message(`{"user_id":7 topsecret`), outside,
		results.insert(1, 7, "", "update", "ok", nil), results.insert(2, nil, "sms", "update", "ok", nil),
		results.insert(3, 7, "sms", "update", "ok", nil))
	if events := f.events(t); len(events) != 1 || !strings.HasPrefix(events[0], "7 _5 result/sms ") {
		t.Errorf("events %v", events)
	}
	f.wantSkipped(t, map[string]int{route.SkipMessage: 1, route.SkipOutsideTx: 1, route.SkipResult: 2})
	wantLines(t, all[string](t, f.world, "SELECT format('%s %s %s %s', ordinal, schema, type, reason) FROM walhook.unrouted ORDER BY ordinal"),
		"1  message malformed_message", "2  message non_transactional_message",
		"3 async_results insert malformed_result", "4 async_results insert malformed_result")
	if n := f.logs.FilterLevelExact(zap.WarnLevel).FilterMessageSnippet("refused").Len(); n != 4 {
		t.Errorf("%d lines say that something was refused, want 4", n)
	}
	for _, entry := range f.logs.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), "topsecret") {
			t.Error("the content of a message is in the log")
		}
	}
}

func TestResult_IsOrderedByAccountAndSchema(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	var changes []schemas.Change
	for range 3 {
		changes = append(changes, message(`{"user_id":7,"schema":"a","type":"update","status":"ok"}`), message(`{"user_id":7,"schema":"b","type":"update","status":"ok"}`))
	}
	f.commit(t, changes...)
	wantLines(t, all[string](t, f.world, "SELECT DISTINCT record FROM walhook.event ORDER BY 1"), "result/a", "result/b")
}

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
