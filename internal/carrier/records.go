package carrier

import (
	"fmt"
	"strings"
)

// record says how the carrier fills and changes the rows of a schema.
type record struct {
	parent string // the schema that a row belongs to; "" is the account
	fields string // the column of the parent first, then those of values
	values func(s *step) []any
	change func(s *step) (set string, values []any) // values are $2 and up
}

func (r record) columns() string { return strings.Join(strings.Fields(r.fields), ", ") }

// mine is the condition for the rows of account $1.
func (r record) mine(schema string) string {
	column := strings.Fields(r.fields)[0]
	if schema == "users" {
		return "id = $1"
	}
	if r.parent == "" {
		return column + " = $1"
	}
	return fmt.Sprintf("%s IN (SELECT id FROM %s WHERE user_id = $1)", column, r.parent)
}

var records = map[string]record{
	"users": {
		fields: "id",
		change: func(s *step) (string, []any) {
			city, state, zip := s.place()
			return `first_name = $2, last_name = $3, city = $4, state = $5, zip = $6, credit_line = $7, using_custom_css = NOT using_custom_css`,
				[]any{s.first(), s.last(), city, state, zip, s.money(5000)}
		},
	},
	"sub_users": {
		fields: "parent_id username email first_name last_name phone_number address city state zip",
		values: func(s *step) []any {
			city, state, zip := s.place()
			return []any{fmt.Sprintf("ext%d", 100+s.IntN(900)), maybe(s.fakes, s.email()), s.first(), s.last(), maybe(s.fakes, s.number()), s.street(), city, state, zip}
		},
		change: func(s *step) (string, []any) {
			return `email = $2, phone_number = $3`, []any{s.email(), maybe(s.fakes, s.number())}
		},
	},
	"sip_accounts": {
		fields: "user_id account_type username domain sbc_number",
		values: func(s *step) []any {
			return []any{pick(s.fakes, "device", "trunk"), fmt.Sprintf("sip-%06d", s.IntN(1e6)), "sip.example.com", s.IntN(4)}
		},
		change: func(s *step) (string, []any) {
			return `sbc_number = $2, domain = $3`, []any{s.IntN(4), pick(s.fakes, "sip.example.com", "edge.example.net")}
		},
	},
	"ip_endpoints": {
		fields: "user_id ip_address ip_name sbc",
		values: func(s *step) []any {
			return []any{s.ip(), maybe(s.fakes, s.business()), fmt.Sprintf("sbc%d", 1+s.IntN(3))}
		},
		change: func(s *step) (string, []any) { return `ip_address = $2`, []any{s.ip()} },
	},
	"monthly_charges": {
		fields: "user_id product_type product_id bill_day_of_month last_billed_dt",
		values: func(s *step) []any {
			return []any{pick(s.fakes, "did", "channel", "e911", "fax"), s.uuid(), 1 + s.IntN(28), maybe(s.fakes, s.time())}
		},
		change: func(s *step) (string, []any) { return `last_billed_dt = $2`, []any{s.time()} },
	},
	"channel_groups": {
		fields: "user_id name channels status",
		values: func(s *step) []any {
			channels := make([]int32, s.IntN(5))
			for i := range channels {
				channels[i] = int32(1 + s.IntN(96))
			}
			return []any{s.business(), channels, pick(s.fakes, "active", "pending")}
		},
		change: func(s *step) (string, []any) {
			return `channels = channels || $2::int, status = $3`, []any{1 + s.IntN(96), pick(s.fakes, "active", "suspended")}
		},
	},
	"call_flows": {
		fields: "user_id flow_name flow_data default_route",
		values: func(s *step) []any {
			return []any{pick(s.fakes, "Office hours", "Holiday <closed>", "Überlauf"), s.flow(), maybe(s.fakes, `{"to": "voicemail", "after": 20.50}`)}
		},
		// Half of the changes leave flow_data unchanged. PostgreSQL then does not send it
		// if it is stored out of line.
		change: func(s *step) (string, []any) {
			if s.chance(50) {
				return `flow_name = $2`, []any{pick(s.fakes, "Office hours", "Night", "Überlauf")}
			}
			return `flow_data = $2`, []any{s.flow()}
		},
	},
	"voicemail_inboxes": {
		fields: "user_id inbox_number inbox_name inbox_pin transcribe",
		values: func(s *step) []any {
			return []any{fmt.Sprint(1000 + s.IntN(9000)), s.first() + " " + s.last(), fmt.Sprintf("%04d", s.IntN(10000)), s.chance(50)}
		},
		change: func(s *step) (string, []any) {
			return `transcribe = NOT transcribe, inbox_pin = $2`, []any{fmt.Sprintf("%04d", s.IntN(10000))}
		},
	},
	"voicemail_emails": {
		parent: "voicemail_inboxes", fields: "voicemail_inbox_id email_address",
		values: func(s *step) []any { return []any{s.email()} },
		change: func(s *step) (string, []any) { return `email_address = $2`, []any{s.email()} },
	},
	"dids": {
		fields: "user_id number number_type state ratecenter sms_enabled inbound_cnam",
		values: func(s *step) []any {
			_, state, _ := s.place()
			return []any{s.number(), pick(s.fakes, "local", "tollfree"), state, s.ratecenter(), s.chance(30), maybe(s.fakes, s.chance(50))}
		},
		change: func(s *step) (string, []any) {
			return `sms_enabled = NOT sms_enabled, inbound_cnam = $2, ratecenter = $3`, []any{maybe(s.fakes, s.chance(50)), s.ratecenter()}
		},
	},
	"did_notes": {
		parent: "dids", fields: "did_id note",
		values: func(s *step) []any {
			return []any{maybe(s.fakes, pick(s.fakes, "VIP, don't touch", "caller says \"hold\" & waits", "line one\nline two", "  spaces  ", "", "c:\\path\tend"))}
		},
		change: func(s *step) (string, []any) { return `note = $2`, []any{"seen by " + s.first()} },
	},
	"directory_listings": {
		parent: "dids", fields: "did_id listing_type business_name first_name last_name address1 address2 city state zip email contact_number",
		values: func(s *step) []any {
			city, state, zip := s.place()
			return []any{pick(s.fakes, "business", "residential"), s.business(), s.first(), s.last(), s.street(), maybe(s.fakes, "Suite 4"), city, state, zip, s.email(), s.number()}
		},
		change: func(s *step) (string, []any) {
			return `business_name = $2, contact_number = $3`, []any{s.business(), s.number()}
		},
	},
	"e911": {
		parent: "dids", fields: "did_id did_number full_name address city state zip unit_type unit_number",
		values: func(s *step) []any {
			city, state, zip := s.place()
			return []any{s.number(), s.first() + " " + s.last(), s.street(), city, state, zip, maybe(s.fakes, pick(s.fakes, "APT", "STE")), maybe(s.fakes, fmt.Sprint(s.IntN(300)))}
		},
		change: func(s *step) (string, []any) {
			city, state, zip := s.place()
			return `address = $2, city = $3, state = $4, zip = $5`, []any{s.street(), city, state, zip}
		},
	},
	"fax_emails": {
		parent: "dids", fields: "did_id email_address",
		values: func(s *step) []any { return []any{s.email()} },
		change: func(s *step) (string, []any) { return `email_address = $2`, []any{s.email()} },
	},
	"faxes": {
		parent: "dids", fields: "did_id fax_status direction source_did destination_did recipient pages",
		values: func(s *step) []any {
			return []any{"receiving", pick(s.fakes, "inbound", "outbound"), s.number(), s.number(), maybe(s.fakes, s.last()), maybe(s.fakes, 1+s.IntN(40))}
		},
		change: func(s *step) (string, []any) {
			return `fax_status = $2, pages = $3`, []any{pick(s.fakes, "success", "failed: busy", "success"), 1 + s.IntN(40)}
		},
	},
	"lnp_requests": {
		fields: "user_id btn location_type business_name first_name last_name account_number service_address service_state service_zip partial_port partial_port_details wireless_number foc_date",
		values: func(s *step) []any {
			_, state, zip := s.place()
			partial := s.chance(30)
			var details *string
			if partial {
				details = new(`{"keep": ["` + s.number() + `"], "share": 0.10}`)
			}
			return []any{s.number(), pick(s.fakes, "business", "residential"), s.business(), s.first(), s.last(), fmt.Sprint(s.IntN(1e8)), s.street(), state, zip, partial, details, s.chance(20), maybe(s.fakes, s.date())}
		},
		change: func(s *step) (string, []any) {
			return `request_status = CASE request_status WHEN 'submitted' THEN 'in review' WHEN 'in review' THEN 'foc received' ELSE 'complete' END, foc_date = $2`, []any{s.date()}
		},
	},
	"lnp_numbers": {
		parent: "lnp_requests", fields: "lnp_request_id number state ratecenter",
		values: func(s *step) []any { return []any{s.number(), "pending", s.ratecenter()} },
		change: func(s *step) (string, []any) {
			return `state = CASE state WHEN 'pending' THEN 'confirmed' ELSE 'ported' END`, nil
		},
	},
	"transactions": {
		fields: "user_id child_id referenced_transaction_id total summary transaction_type transaction_status",
		values: func(s *step) []any {
			return []any{maybe(s.fakes, s.Int64N(1e6)), nil, s.money(500), pick(s.fakes, "2 numbers <monthly>", "top up & bonus", "refund"), pick(s.fakes, "debit", "credit"), "pending"}
		},
		change: func(s *step) (string, []any) {
			return `transaction_status = $2, total = $3`, []any{pick(s.fakes, "complete", "failed"), s.money(500)}
		},
	},
	"transaction_items": {
		parent: "transactions", fields: "transaction_id product_description product_price product_mrc processing_flags fail_reason",
		values: func(s *step) []any {
			return []any{pick(s.fakes, "Local number", "Toll-free \"vanity\"", "Channel"), s.money(50), maybe(s.fakes, s.money(5)), pick(s.fakes, []string{}, []string{"taxed"}, []string{"prorated", "a,b", `say "hi"`}), nil}
		},
		change: func(s *step) (string, []any) {
			return `fail_reason = $2, processing_flags = processing_flags || $3::text`, []any{maybe(s.fakes, "card declined"), "retried"}
		},
	},
}
