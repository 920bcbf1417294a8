package route

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"walhook/schemas"
)

func TestResult_ComesEitherWay(t *testing.T) {
	f := newFeed(t)
	f.commit(account(7), account(8))
	f.forget()
	f.commit(
		results.Insert(1, 7, "sms_enablement", "update", "error", "already provisioned"),
		message(`{"user_id":7,"schema":"sms_enablement","type":"update","status":"ok"}`),
		message(`{"user_id":"8","schema":"porting","type":"insert","status":"ok","verbose":"<b>"}`),
		dids.Insert(1, 7, "312"))
	var bodies []string
	for _, e := range f.log {
		bodies = append(bodies, fmt.Sprint(e.To.Account, " ", e.Record, " ", e.WebhookID[20:], " ", e.Schema, " ", e.Type, " ", string(e.Body)))
	}
	wantLines(t, bodies[:min(3, len(bodies))],
		`7 result/sms_enablement _1 sms_enablement update {"type":"update","schema":"sms_enablement","status":"error","verbose":"already provisioned"}`,
		`7 result/sms_enablement _2 sms_enablement update {"type":"update","schema":"sms_enablement","status":"ok","verbose":""}`,
		`8 result/porting _3 porting insert {"type":"insert","schema":"porting","status":"ok","verbose":"<b>"}`)
	f.wantSkipped(t, map[Reason]int{})
}

func TestResult_OnlyInsertsCount(t *testing.T) {
	f := newFeed(t)
	f.commit(account(7))
	f.forget()
	f.commit(
		results.Update(nil, row(1, 7, "sms_enablement", "update", "ok", nil)),
		results.Delete(1, notSent, notSent, notSent, notSent, notSent),
		results.Truncate(),
		message(`{"user_id":9,"schema":"sms_enablement","type":"update","status":"ok"}`))
	wantLines(t, f.events())
	f.wantSkipped(t, map[Reason]int{SkipNoEndpoint: 1, SkipTruncate: 1})
}

func TestResult_WhatIsRefusedIsListedAndTheFeedGoesOn(t *testing.T) {
	f := newFeed(t)
	f.commit(account(7))
	f.forget()
	outside := message(`{"user_id":7,"schema":"sms","type":"update","status":"ok"}`)
	outside.Transactional = false
	f.commit(message(`{"user_id":7 topsecret`), outside,
		results.Insert(1, 7, "", "update", "ok", nil), results.Insert(2, nil, "sms", "update", "ok", nil),
		results.Insert(3, 7, "sms", "update", "ok", nil))
	if events := f.events(); len(events) != 1 || !strings.HasPrefix(events[0], "7 _5 result/sms ") {
		t.Errorf("events %v", events)
	}
	f.wantSkipped(t, map[Reason]int{SkipMessage: 1, SkipOutsideTx: 1, SkipResult: 2})
	wantLines(t, f.listed(),
		"1  message  malformed_message", "2  message  non_transactional_message",
		"3 async_results insert  malformed_result", "4 async_results insert  malformed_result")
	refused := 0
	for _, n := range f.notes {
		if n.Level == Warn && strings.Contains(n.Text, "refused") {
			refused++
		}
		if strings.Contains(fmt.Sprint(n.Text, n.Fields), "topsecret") {
			t.Error("a note has the content of a message")
		}
	}
	if refused != 4 {
		t.Errorf("%d notes say that something was refused, want 4", refused)
	}
}

func TestResult_IsOrderedByAccountAndSchema(t *testing.T) {
	f := newFeed(t)
	f.commit(account(7))
	f.forget()
	var changes []schemas.Change
	for range 3 {
		changes = append(changes, message(`{"user_id":7,"schema":"a","type":"update","status":"ok"}`), message(`{"user_id":7,"schema":"b","type":"update","status":"ok"}`))
	}
	f.commit(changes...)
	records := map[string]int{}
	for _, e := range f.log {
		records[e.Record]++
	}
	if want := map[string]int{"result/a": 3, "result/b": 3}; !maps.Equal(records, want) {
		t.Errorf("records %v, want %v", records, want)
	}
}
