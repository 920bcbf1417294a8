package endtoend

import (
	"strings"
	"testing"
)

// hookCase is one account whose webhooks are told, or not told, of what happens
// to it.
type hookCase struct {
	golden  string   // file under testdata/hooks, and the path that the webhook is at
	webhook string   // its fields besides name and uri
	deaf    []string // other webhooks of the account, which must hear nothing
	happens []string // SQL; see happening
	from    string   // the account that it happens to, where that is another one
	anyhow  bool     // what arrives may come in any order
}

// pbxCall holds whatever the phone system of the hosted PBX knows. Each hook
// takes its own fields from it, in its own order.
const pbxCall = `{"callerIdName":"Jürgen \"J\" Müller & Söhne","callerIdNum":"+49 30 1234","callUuid":"6a1f-02","numberDialed":"011 44/20?x#1",
	"extName":"Büro 50% + mehr","extNumber":"101","extensionName":"Büro 50% + mehr","extensionNumber":"101","queueNumber":"700","rgNumber":"600",
	"cidPrefix":"[VIP] ","didGroup":"Sales/EU","didDescription":"Main line; a=b","didNumber":"+13125551212","tenantId":"t-3","containerId":"12",
	"eventType":"overwritten","messageText":"Größe \"L\" & 1 + 1 = 2\nüber 50%","conversationID":"c9","tenantID":"t-3","containerID":"12",
	"fromNumber":"+49 30 1234","toNumber":"+13125551212","eventTarget":"extension"}`

var pbxUnanswered = strings.NewReplacer(`"extName":"Büro 50% + mehr","extNumber":"101",`, "").Replace(pbxCall)
var pbxRingGroup = strings.Replace(pbxCall, `"eventTarget":"extension"`, `"eventTarget":"ringGroup"`, 1)

// pbxCases are the bodies of the document of the hosted PBX.
var pbxCases = []hookCase{
	{golden: "001/inboundMessage", webhook: `"hook":"inboundMessage"` + boundTo("number", "+13125551212"),
		deaf: []string{`"hook":"inboundMessage"` + boundTo("number", "+49 30 1234"), `"hook":"outboundMessage"`}, happens: told("inboundMessage", pbxCall)},
	{golden: "001/outboundMessage", webhook: `"hook":"outboundMessage"` + boundTo("number", "+49 30 1234"),
		deaf: []string{`"hook":"outboundMessage"` + boundTo("number", "+13125551212")}, happens: told("outboundMessage", pbxCall)},
	{golden: "001/InboundCall", webhook: `"hook":"InboundCall"` + boundTo("number", "+13125551212"),
		deaf: []string{`"hook":"InboundCall"` + boundTo("number", "+13125551213"), `"hook":"HangupCall"`}, happens: told("InboundCall", pbxCall)},
	{golden: "001/HangupCall", webhook: `"hook":"HangupCall"` + boundTo("number", "+13125551212"),
		deaf: []string{`"hook":"HangupCall"` + boundTo("number", "+13125551213")}, happens: told("HangupCall", pbxCall)},
	{golden: "001/HangupCall_unanswered", webhook: `"hook":"HangupCall"` + boundTo("number", "+13125551212"), happens: told("HangupCall", pbxUnanswered)},
	{golden: "001/ringAttempt_extension", webhook: `"hook":"ringAttempt"` + boundTo("extension", "101"),
		deaf: []string{`"hook":"ringAttempt"` + boundTo("extension", "102"), `"hook":"ringAttempt"` + boundTo("ringGroup", "600")}, happens: told("ringAttempt", pbxCall)},
	{golden: "001/ringAttempt_ringGroup", webhook: `"hook":"ringAttempt"` + boundTo("ringGroup", "600"),
		deaf: []string{`"hook":"ringAttempt"` + boundTo("ringGroup", "601"), `"hook":"ringAttempt"` + boundTo("extension", "101")}, happens: told("ringAttempt", pbxRingGroup)},
	{golden: "001/ExtensionAnswered", webhook: `"hook":"ExtensionAnswered"` + boundTo("extension", "101"),
		deaf: []string{`"hook":"ExtensionAnswered"` + boundTo("extension", "102")}, happens: told("ExtensionAnswered", pbxCall)},
	{golden: "001/inboundCallCompleted", webhook: `"hook":"inboundCallCompleted"` + boundTo("extension", "101"),
		deaf: []string{`"hook":"inboundCallCompleted"` + boundTo("extension", "102")}, happens: told("inboundCallCompleted", pbxCall)},
	{golden: "001/voicemailHangup", webhook: `"hook":"voicemailHangup"` + boundTo("extension", "101"),
		deaf: []string{`"hook":"voicemailHangup"` + boundTo("extension", "102")}, happens: told("voicemailHangup", pbxCall)},
	{golden: "001/outboundCall", webhook: `"hook":"outboundCall"` + boundTo("extension", "101"),
		deaf: []string{`"hook":"outboundCall"` + boundTo("extension", "102")}, happens: told("outboundCall", pbxCall)},
	{golden: "001/queueEntered", webhook: `"hook":"queueEntered"` + boundTo("queue", "700"),
		deaf: []string{`"hook":"queueEntered"` + boundTo("queue", "701"), `"hook":"queueEntered"` + boundTo("extension", "700")}, happens: told("queueEntered", pbxCall)},
}

// customCall is the call of the example of custom data.
const customCall = `{"call_id":"4922199999936@88.99.77.55","from":"user_37ccch@www.wirecloud.de","to":"*97@www.wirecloud.de",
	"request":"*97@www.wirecloud.de","call_direction":"inbound","account_id":"forged","screen_pop":"of no field"}`

var customCases = []hookCase{
	{golden: "002/custom_data", happens: written("channel_create", customCall),
		webhook: `"http_verb":"post","hook":"channel_create","retries":3,"custom_data":{"account_id":"my_crm_account_id","screen_pop":true}`},
	{golden: "002/custom_data_form", happens: written("channel_create", customCall),
		webhook: `"http_verb":"put","format":"form","hook":"channel_create","custom_data":{"account_id":"my_crm_account_id","screen_pop":true}`},
	{golden: "002/custom_data_order", happens: written("channel_create", customCall),
		webhook: `"hook":"channel_create","custom_data":{"zeta":1,"account_id":"x","a":{"n":[1,"ä"]}}`},
}

// call holds whatever a phone system may say of a call, a fax, a voicemail or a
// device.
const call = `{"callee_id_number":"101","callee_id_name":"Simon","caller_id_number":"+13125551212","caller_id_name":"Mike & Söhne",
	"other_leg_call_id":"leg-2@88.99.77.55","call_id":"4922199999936@88.99.77.55","from":"user_37ccch@pbx.example.com","to":"*97@pbx.example.com",
	"request":"*97@pbx.example.com","call_direction":"inbound","hangup_code":"487","hangup_cause":"ORIGINATOR_CANCEL","parking_slot":"*301",
	"parking_event":"parked","voicemail_transcription":"Call me, \"please\"","voicemail_length":12,"voicemail_id":"vm-1","voicemail_box":"101",
	"max_message_count":100,"message_count":100,"fax_error":"no carrier","fax_pages":3,"fax_id":"fax-1","user_agent":"Phone/1.0 (a; b)",
	"contact":"sip:user_37ccch@10.0.0.7:5060","realm":"pbx.example.com","username":"user_37ccch"}`

// missedCall is the document by which users of Kazoo ask for missed calls.
const missedCall = `"hook":"notifications","include_subaccounts":false,"http_verb":"get","retries":4,"type":"account","action":"doc_created",
	"custom_data":{"type":"missed_call"},"enabled":true,"include_internal_legs":true,"id":"51840ffc8bde832a1f5477def32cd665"`

var kazooCases = []hookCase{
	{golden: "003/channel_create", webhook: `"hook":"channel_create"`, deaf: []string{`"hook":"channel_answer"`, `"hook":"records"`}, happens: written("channel_create", call)},
	{golden: "003/channel_answer", webhook: `"hook":"channel_answer"`, deaf: []string{`"hook":"channel_create"`}, happens: written("channel_answer", call)},
	{golden: "003/channel_bridge", webhook: `"hook":"channel_bridge"`, deaf: []string{`"hook":"channel_create"`}, happens: written("channel_bridge", call)},
	{golden: "003/channel_destroy", webhook: `"hook":"channel_destroy"`, deaf: []string{`"hook":"channel_create"`}, happens: written("channel_destroy", call)},
	{golden: "003/parking", webhook: `"hook":"parking"`, deaf: []string{`"hook":"notifications"`}, happens: written("parking", call)},
	{golden: "003/committed", webhook: `"hook":"channel_create"`, happens: told("channel_create", call)},
	notification("voicemail_new"), notification("voicemail_full"), notification("fax_outbound"), notification("fax_outbound_error"),
	notification("fax_inbound_error"), notification("missed_call"), notification("register"), notification("deregister"),
	{golden: "003/notifications", webhook: `"hook":"notifications"`, deaf: []string{missedCall},
		happens: written("notifications", `{"left":1.50,"currency":"EUR","type":"low_balance"}`)},
	{golden: "003/missed_call_document", webhook: missedCall, happens: append(written("voicemail_new", call), written("missed_call", call)...)},
	{golden: "003/missed_call_account", webhook: `"hook":"notifications","type":"account","action":"doc_created","custom_data":{}`, happens: written("missed_call", call)},
	{golden: "003/include_subaccounts", webhook: `"hook":"channel_create","include_subaccounts":true`, deaf: []string{`"hook":"channel_create"`},
		happens: written("channel_create", call), from: "103"},
	{golden: "003/include_internal_legs", webhook: `"hook":"channel_create","include_internal_legs":true`, deaf: []string{`"hook":"channel_create"`},
		happens: []string{strings.Replace(written("channel_create", call)[0], "false", "true", 1)}},
	{golden: "003/object", webhook: `"hook":"object"`, deaf: []string{`"hook":"object","type":"faxes"`, `"hook":"object","action":"doc_moved"`},
		happens: []string{"INSERT INTO dids (id, user_id, number) VALUES (5, {account}, '5')", "UPDATE dids SET state = 'IL' WHERE id = 5", "DELETE FROM dids WHERE id = 5"}},
	{golden: "003/object_deleted", webhook: `"hook":"object","type":"dids","action":"doc_deleted"`,
		happens: []string{"INSERT INTO dids (id, user_id, number) VALUES (6, {account}, '6')", "DELETE FROM dids WHERE id = 6"}},
	{golden: "003/all", webhook: `"hook":"all"`, anyhow: true,
		happens: append(append(written("channel_create", call), told("queueEntered", pbxCall)...), "INSERT INTO dids (id, user_id, number) VALUES (7, {account}, '7')")},
}

// notification is one that is put as itself and picked by its type.
func notification(kind string) hookCase {
	return hookCase{golden: "003/" + kind, webhook: `"hook":"notifications","type":"` + kind + `"`,
		deaf: []string{`"hook":"notifications","type":"other"`, `"hook":"channel_create"`}, happens: written(kind, call)}
}

// boundTo binds a webhook to one number, extension, ring group or queue.
func boundTo(kind, id string) string { return `,"target":{"type":"` + kind + `","id":"` + id + `"}` }

// told is an event by a logical message; it happens when it is committed.
func told(hook, payload string) []string {
	return []string{`SELECT pg_logical_emit_message(true, 'walhook.event', '{"account_id":{account},"hook":"` + hook + `","payload":` + payload + `}')`}
}

// written is an event by a row of the table of events, at the moment that the
// document of the custom data shows.
func written(hook, payload string) []string {
	return []string{`INSERT INTO events (account_id, hook, internal, created_at, payload)
		VALUES ({account}, '` + hook + `', false, '2014-01-15 19:59:35+00', '` + payload + `')`}
}

// badEvents are refused, each for its reason.
var badEvents = []struct{ reason, sql string }{
	{"malformed_event", `SELECT pg_logical_emit_message(true, 'walhook.event', '{"account_id":1,"hook":"parking"')`},
	{"malformed_event", `SELECT pg_logical_emit_message(true, 'walhook.event', '{"account_id":1,"hook":"parking","payload":"none"}')`},
	{"malformed_event", `INSERT INTO events (account_id, hook, payload) VALUES (1, 'parking', '[1]')`},
	{"malformed_event", `INSERT INTO events (account_id, hook, payload) VALUES (1, 'ringAttempt', '{"eventTarget":"door"}')`},
	{"unknown_hook", `SELECT pg_logical_emit_message(true, 'walhook.event', '{"account_id":1,"hook":"unheard_of","payload":{}}')`},
	{"unknown_hook", `INSERT INTO events (account_id, hook, payload) VALUES (1, 'unheard_of', '{}')`},
	{"event_too_large", `SELECT pg_logical_emit_message(true, 'walhook.event', '{"account_id":1,"hook":"parking","payload":{"x":"' || repeat('x', 256 * 1024) || '"}}')`},
	{"event_too_large", `INSERT INTO events (account_id, hook, payload) VALUES (1, 'parking', json_build_object('x', repeat('x', 256 * 1024)))`},
}

// TestHooks_SendEveryBodyOfTheDocuments goes the whole way: webhooks made
// through the API, events put into the source, what a receiver gets.
func TestHooks_SendEveryBodyOfTheDocuments(t *testing.T) {
	t.Parallel()
	w := newHookWorld(t)
	cases := append(append(append([]hookCase{}, pbxCases...), customCases...), kazooCases...)
	w.subscribe(t, cases)
	w.refused(t) // what is refused holds up nothing that follows
	w.happen(t, cases)
	w.wantGolden(t, cases)
	w.wantNothingElse(t)
	w.process.stop(t)
}
