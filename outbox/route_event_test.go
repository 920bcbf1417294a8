package outbox

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

var emissions = newTable("events", 'd', "id account_id hook payload internal created_at")

func emit(id int, account any, hook, payload string) schemas.Change {
	return emissions.Insert(id, account, hook, payload, "f", "2014-01-15 19:59:35+00")
}

func eventMessage(content string) schemas.Change {
	c := message(content)
	c.Prefix = schemas.EventPrefix
	return c
}

// bodies lists the log, a line each: webhook, webhook-id without the commit's
// place, record, schema, type, format and body.
func (f *feed) bodies(t *testing.T) []string {
	t.Helper()
	return all[string](t, f.world, `
		SELECT format('%s %s %s %s %s %s %s', p.webhook, substring(e.webhook_id FROM '_[0-9]+[a-z]*$'), e.record, e.schema, e.type, e.format, convert_from(e.body, 'UTF8'))
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
}

func TestEvent_ComesEitherWay(t *testing.T) {
	f := newFeed(t)
	f.webhook(t, "7", "calls", "hook = 'channel_create'")
	f.webhook(t, "7", "everything", "hook = 'all'", "include_internal_legs = true")
	f.webhook(t, "8", "stranger", "hook = 'all'")
	f.commit(t,
		emit(1, 7, "channel_create", `{"call_id":"a@b","to":"x"}`),
		eventMessage(`{"account_id":7,"hook":"channel_create","payload":{"call_id":"a@b"},"internal":true}`),
		eventMessage(`{"account_id":"7","hook":"InboundCall","payload":{"callUuid":"u","didNumber":"312"}}`),
		emit(2, 9, "channel_create", `{}`))
	wantLines(t, f.bodies(t),
		`calls _1 event/a@b channel_create event json {"hook_event":"channel_create","timestamp":63557035175,"account_id":"7","to":"x","call_id":"a@b"}`,
		`everything _1 event/a@b channel_create event json {"hook_event":"channel_create","timestamp":63557035175,"account_id":"7","to":"x","call_id":"a@b"}`,
		`everything _2 event/a@b channel_create event json {"hook_event":"channel_create","timestamp":63867219200,"account_id":"7","call_id":"a@b"}`,
		`everything _3 event/u InboundCall event form {"eventType":"InboundCall","eventTarget":"phoneNumber","containerId":"","tenantId":"","didNumber":"312","didDescription":"","didGroup":"","cidPrefix":"","callUuid":"u","callerIdNum":"","callerIdName":""}`)
	f.wantSkipped(t, map[string]int{route.SkipNoEndpoint: 1})
}

func TestEvent_OnlyInsertsCount(t *testing.T) {
	f := newFeed(t)
	f.webhook(t, "7", "a", "hook = 'all'")
	f.commit(t, emissions.Update(nil, row(1, 7, "parking", "{}", "f", nil)), emissions.Delete(1, notSent, notSent, notSent, notSent, notSent), emissions.Truncate())
	wantLines(t, f.bodies(t))
	f.wantSkipped(t, map[string]int{route.SkipTruncate: 1})
}

func TestEvent_BoundToATarget(t *testing.T) {
	f := newFeed(t)
	for _, bound := range [][3]string{{"number", "312", "InboundCall"}, {"extension", "101", "ringAttempt"}, {"ringGroup", "600", "ringAttempt"}, {"queue", "700", "all"}} {
		f.webhook(t, "7", bound[0], "target = '"+bound[0]+"', target_id = '"+bound[1]+"', hook = '"+bound[2]+"'")
	}
	for i, e := range [][2]string{
		{"InboundCall", `{"didNumber":"312"}`}, {"InboundCall", `{"didNumber":"313"}`}, {"HangupCall", `{"didNumber":"312"}`},
		{"ringAttempt", `{"eventTarget":"extension","extNumber":101}`}, {"ringAttempt", `{"eventTarget":"extension","extNumber":"600"}`},
		{"ringAttempt", `{"eventTarget":"ringGroup","rgNumber":"600"}`}, {"ringAttempt", `{"eventTarget":"ringGroup","rgNumber":"101"}`},
		{"queueEntered", `{"queueNumber":"700"}`}, {"queueEntered", `{"queueNumber":"701"}`},
	} {
		f.commit(t, emit(i, 7, e[0], e[1]))
	}
	wantLines(t, all[string](t, f.world, `SELECT p.webhook || ' ' || e.schema || ' ' || substring(convert_from(e.body, 'UTF8') FROM 'eventTarget":"([a-zA-Z]*)')
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`),
		"number InboundCall phoneNumber", "extension ringAttempt extension", "ringGroup ringAttempt ringGroup", "queue queueEntered queue")
}

func TestEvent_NotificationsArePickedByTheirType(t *testing.T) {
	f := newFeed(t)
	// As clients of Kazoo make them: type and action say something else, custom
	// data the type, or nothing about it.
	f.webhook(t, "7", "missed", "hook = 'notifications'", "object_type = 'account', object_action = 'doc_created'", `custom_data = '{"type":"missed_call"}'`)
	f.webhook(t, "7", "whole", "hook = 'notifications'", "object_type = 'account', object_action = 'doc_created'", `custom_data = '{"type":"lead"}'`)
	f.webhook(t, "7", "register", "hook = 'notifications', object_type = 'register'", `custom_data = '{"type":"missed_call"}'`)
	f.webhook(t, "7", "own", "hook = 'missed_call'")
	f.webhook(t, "7", "every", "hook = 'notifications'")
	f.commit(t, emit(1, 7, "missed_call", `{"call_id":"1"}`), emit(2, 7, "notifications", `{"type":"missed_call","call_id":"2"}`),
		emit(3, 7, "notifications", `{"type":"low_balance","left":1.50}`), emit(4, 7, "register", `{"username":"u"}`))
	wantLines(t, f.bodies(t),
		`missed _1 event/1 missed_call event json {"hook_event":"missed_call","timestamp":63557035175,"account_id":"7","call_id":"1","type":"missed_call"}`,
		`whole _1 event/1 missed_call event json {"hook_event":"missed_call","timestamp":63557035175,"account_id":"7","call_id":"1","type":"missed_call"}`,
		`own _1 event/1 missed_call event json {"hook_event":"missed_call","timestamp":63557035175,"account_id":"7","call_id":"1","type":"missed_call"}`,
		`every _1 event/1 missed_call event json {"hook_event":"missed_call","timestamp":63557035175,"account_id":"7","call_id":"1","type":"missed_call"}`,
		`missed _2 event/2 missed_call event json {"hook_event":"missed_call","timestamp":63557035175,"account_id":"7","call_id":"2","type":"missed_call"}`,
		`whole _2 event/2 missed_call event json {"hook_event":"missed_call","timestamp":63557035175,"account_id":"7","call_id":"2","type":"missed_call"}`,
		`own _2 event/2 missed_call event json {"hook_event":"missed_call","timestamp":63557035175,"account_id":"7","call_id":"2","type":"missed_call"}`,
		`every _2 event/2 missed_call event json {"hook_event":"missed_call","timestamp":63557035175,"account_id":"7","call_id":"2","type":"missed_call"}`,
		`whole _3 event/0/1100#3 notifications event json {"hook_event":"notifications","timestamp":63557035175,"account_id":"7","type":"low_balance","left":1.50}`,
		`every _3 event/0/1100#3 notifications event json {"hook_event":"notifications","timestamp":63557035175,"account_id":"7","type":"low_balance","left":1.50}`,
		`whole _4 event/u register event json {"hook_event":"register","timestamp":63557035175,"account_id":"7","type":"register","username":"u"}`,
		`register _4 event/u register event json {"hook_event":"register","timestamp":63557035175,"account_id":"7","type":"register","username":"u"}`,
		`every _4 event/u register event json {"hook_event":"register","timestamp":63557035175,"account_id":"7","type":"register","username":"u"}`)
}

func TestEvent_WhatIsRefusedIsListedAndTheFeedGoesOn(t *testing.T) {
	f := newFeed(t)
	f.webhook(t, "7", "a", "hook = 'all'")
	outside := eventMessage(`{"account_id":7,"hook":"parking","payload":{}}`)
	outside.Transactional = false
	large := `{"x":"` + strings.Repeat("topsecret", catalog.MaxEventPayload/9) + `"}`
	f.commit(t,
		eventMessage(`{"account_id":7 topsecret`),                                                   // 1
		eventMessage(`{"account_id":7,"hook":"topsecret!","payload":{}}`),                           // 2
		eventMessage(`{"account_id":7,"hook":"unheard_of","payload":{}}`),                           // 3
		eventMessage(`{"account_id":7,"hook":"parking","payload":"topsecret"}`),                     // 4
		eventMessage(`{"account_id":7,"hook":"parking"}`),                                           // 5
		eventMessage(`{"hook":"parking","payload":{}}`),                                             // 6
		eventMessage(`{"account_id":[7],"hook":"parking","payload":{}}`),                            // 7
		eventMessage(`{"account_id":7,"hook":"parking","payload":`+large+`}`),                       // 8
		eventMessage(`{"account_id":7,"hook":"parking","payload":`+large+large+`}`),                 // 9
		eventMessage(`{"account_id":7,"hook":"ringAttempt","payload":{"eventTarget":"topsecret"}}`), // 10
		eventMessage("{\"account_id\":7,\"hook\":\"parking\",\"payload\":{\"x\":\"\xff\"}}"),        // 11
		eventMessage(`{"account_id":7,"hook":"parking","payload":{},"internal":"topsecret"}`),       // 12
		outside,                                          // 13
		emit(1, 7, "parking", large),                     // 14
		emit(2, 7, "parking", `[1]`),                     // 15
		emit(3, nil, "parking", `{}`),                    // 16
		emit(4, 7, "", `{}`),                             // 17
		emit(5, 7, "gone", `{}`),                         // 18
		emissions.Insert(6, 7, "parking", nil, "f", nil), // 19
		// What JSON can hold and PostgreSQL's text cannot.
		emit(7, 7, "parking", `{"call_id":"a\u0000b","action":"c\u0000d"}`), // 20
		emit(8, strings.Repeat("7", 2000), "parking", `{}`),                 // 21
	)
	wantLines(t, f.bodies(t), `a _20 event/ab parking event json {"hook_event":"parking","timestamp":63557035175,"account_id":"7","call_id":"a\u0000b"}`)
	f.wantSkipped(t, map[string]int{route.SkipEvent: 14, route.SkipHook: 2, route.SkipEventSize: 3, route.SkipOutsideTx: 1})
	got := all[string](t, f.world, "SELECT format('%s %s %s %s %s', ordinal, schema, type, key, reason) FROM walhook.unrouted ORDER BY ordinal")
	if len(got) != 20 || strings.Contains(strings.Join(got, "\n"), "topsecret") {
		t.Errorf("unrouted\n\t%s", strings.Join(got, "\n\t"))
	}
	for _, entry := range f.logs.FilterLevelExact(zap.WarnLevel).All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), "topsecret") {
			t.Errorf("the log shows what was refused: %s %v", entry.Message, entry.ContextMap())
		}
	}
}

// A table that is called events and is something else is left alone.
func TestEvent_AnotherTableOfThatNameIsNoTableOfEvents(t *testing.T) {
	f := newFeed(t)
	f.webhook(t, "7", "a", "hook = 'all'")
	other := newTable("events", 'd', "id title")
	f.commit(t, other.Insert(1, "concert"))
	f.wantSkipped(t, map[string]int{route.SkipNoTable: 1})
}

// Any role that can connect to the source can emit a logical message. What it
// says is signed with an account's secret, so it must not pass for a record of
// that account or for a notice of walhook's own, whichever way it comes.
func TestForged_AMessageCannotPassForARecordOrANoticeOfWalhook(t *testing.T) {
	f := newFeed(t)
	f.webhook(t, "7", "everything", "hook = 'all'")
	f.webhook(t, "7", "feed", "hook = 'records'")
	f.commit(t, account(7))
	f.forget(t)
	names := []string{"dids", "DIDS", "Users", "users", "webhook.disabled", "Webhook.Disabled", "webhook.anything", "resync", "test", "object", "records", "all",
		"webhook", "notice", "Day", "gap", "sync"}
	for _, s := range f.publisher.catalog.Schemas {
		names = append(names, s.Name)
	}
	var changes []schemas.Change
	for i, name := range names {
		changes = append(changes,
			message(fmt.Sprintf(`{"user_id":7,"schema":%q,"type":"delete","status":"x"}`, name)),
			results.Insert(i, 7, name, "update", "x", nil),
			eventMessage(fmt.Sprintf(`{"account_id":7,"hook":%q,"payload":{"id":"1","type":"dids","action":"doc_deleted"}}`, name)),
			emit(i, 7, name, `{"id":"1","type":"dids","action":"doc_deleted"}`))
	}
	changes = append(changes, message(`{"user_id":7,"schema":"sms_enablement","type":"update","status":"ok"}`))
	f.commit(t, changes...)
	if events := f.events(t); len(events) != 2 {
		t.Errorf("sent: %q", events)
	}
	f.wantSkipped(t, map[string]int{route.SkipReserved: 4 * len(names)})
	listed := all[string](t, f.world, "SELECT DISTINCT key FROM walhook.unrouted WHERE reason = 'reserved_name' AND schema = '' AND type = 'message'")
	for _, name := range names {
		found := false
		for _, key := range listed {
			found = found || key == name
		}
		if !found {
			t.Errorf("%s is not named among %q", name, listed)
		}
	}
}

// An event comes under the name of a group by its type, a result never.
func TestForged_AResultUnderTheNameOfAGroupIsRefused(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	f.commit(t, message(`{"user_id":7,"schema":"Notifications","type":"update","status":"x"}`), results.Insert(1, 7, "notifications", "update", "x", nil))
	if events := f.events(t); len(events) > 0 {
		t.Errorf("sent: %q", events)
	}
	f.wantSkipped(t, map[string]int{route.SkipReserved: 2})
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
