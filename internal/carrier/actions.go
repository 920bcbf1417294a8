package carrier

import (
	"encoding/json"
	"fmt"
)

// action is a kind of transaction, with its relative frequency.
type action struct {
	name   string
	weight int
	run    func(s *step, a *Activity) error
}

// actions lists the kinds of transactions of a carrier.
func actions() []action {
	all := []action{
		{"buy number", 10, func(s *step, _ *Activity) error { return s.order() }},
		{"release number", 4, (*step).release},
		{"move number", 8, (*step).move},
		{"drop number", 2, func(s *step, _ *Activity) error { return s.delete("dids") }},
		{"renumber", 1, (*step).renumber},
		{"route number", 4, (*step).route},
		{"port request", 4, (*step).port},
		{"port progress", 8, (*step).progress},
		{"invoice", 5, (*step).invoice},
		{"billing run", 1, (*step).billingRun},
		{"sms result row", 6, func(s *step, _ *Activity) error { return s.resultRow() }},
		{"sms result message", 6, func(s *step, _ *Activity) error { return s.resultMessage() }},
		{"profile", 5, func(s *step, _ *Activity) error { return s.update("users") }},
		{"sign up", 1, (*step).signUp},
		{"close account", 1, (*step).closeAccount},
		{"url change", 1, (*step).changeURL},
		{"url clear", 1, (*step).clearURL},
	}
	for _, t := range tables {
		if t.name == "users" || t.name == "dids" {
			continue
		}
		all = append(all,
			action{"insert " + t.name, 3, func(s *step, _ *Activity) error { _, err := s.insert(t.name); return err }},
			action{"update " + t.name, 4, func(s *step, _ *Activity) error { return s.update(t.name) }},
			action{"delete " + t.name, 2, func(s *step, _ *Activity) error { return s.delete(t.name) }},
		)
	}
	return all
}

// buy takes a number from the pool, and refills an empty pool.
func (s *step) buy() (int64, error) {
	const fromPool = `
		UPDATE dids SET user_id = $1, sms_enabled = false WHERE id = (
			SELECT id FROM dids WHERE user_id IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING id`
	id, err := s.id(fromPool, s.account)
	if err != errNothing {
		return id, err
	}
	if err := s.fillPool(10); err != nil {
		return 0, err
	}
	return s.id(fromPool, s.account)
}

func (s *step) fillPool(numbers int) error {
	for range numbers {
		if err := s.exec(`INSERT INTO dids (number, ratecenter) VALUES ($1, $2)`, s.number(), s.ratecenter()); err != nil {
			return err
		}
	}
	return nil
}

// order buys a number and everything that goes with it, in one transaction.
func (s *step) order() error {
	did, err := s.buy()
	if err != nil {
		return err
	}
	if _, err := s.insert("monthly_charges"); err != nil {
		return err
	}
	transaction, err := s.insertUnder("transactions", s.account)
	if err != nil {
		return err
	}
	if _, err := s.insertUnder("transaction_items", transaction); err != nil {
		return err
	}
	_, err = s.insertUnder("e911", did)
	return err
}

// release returns a number to the pool. Its records stay, with the account to which they
// were last sent.
func (s *step) release(*Activity) error {
	id, err := s.oneOf("dids")
	if err != nil {
		return err
	}
	return s.exec(`UPDATE dids SET user_id = NULL, call_flow_id = NULL, channel_group_id = NULL, voicemail_inbox_id = NULL WHERE id = $1`, id)
}

// move reassigns a number to the other account. Often one of its records changes soon
// after and moves with that change.
func (s *step) move(*Activity) error {
	id, err := s.oneOf("dids")
	if err != nil {
		return err
	}
	err = s.exec(`UPDATE dids SET user_id = $2, call_flow_id = NULL, channel_group_id = NULL, voicemail_inbox_id = NULL WHERE id = $1`, id, s.other)
	if err != nil || s.chance(50) {
		return err
	}
	for _, schema := range []string{"e911", "faxes", "did_notes"} {
		set, values := records[schema].change(s)
		err := s.exec(fmt.Sprintf(`UPDATE %s SET %s WHERE did_id = $1`, schema, set), append([]any{id}, values...)...)
		if err != nil && err != errNothing {
			return err
		}
	}
	return nil
}

// renumber changes a primary key, which cascades to the number's records.
func (s *step) renumber(*Activity) error {
	id, err := s.oneOf("dids")
	if err != nil {
		return err
	}
	return s.exec(`UPDATE dids SET id = nextval(pg_get_serial_sequence('dids', 'id')) WHERE id = $1`, id)
}

// route points a number to a call flow, a channel group and a voicemail box.
func (s *step) route(*Activity) error {
	did, err := s.oneOf("dids")
	if err != nil {
		return err
	}
	for _, target := range []struct{ column, schema string }{
		{"call_flow_id", "call_flows"}, {"channel_group_id", "channel_groups"}, {"voicemail_inbox_id", "voicemail_inboxes"},
	} {
		id, err := s.oneOf(target.schema)
		if err == errNothing {
			id, err = s.insert(target.schema)
		}
		if err != nil {
			return err
		}
		if err := s.exec(`UPDATE dids SET `+target.column+` = $2 WHERE id = $1`, did, id); err != nil {
			return err
		}
	}
	return nil
}

func (s *step) port(*Activity) error {
	request, err := s.insert("lnp_requests")
	if err != nil {
		return err
	}
	for range 1 + s.IntN(3) {
		if _, err := s.insertUnder("lnp_numbers", request); err != nil {
			return err
		}
	}
	return nil
}

// progress moves a port to its next state; ported numbers then belong to the account.
func (s *step) progress(*Activity) error {
	request, err := s.oneOf("lnp_requests")
	if err != nil {
		return err
	}
	set, values := records["lnp_requests"].change(s)
	if err := s.exec(`UPDATE lnp_requests SET `+set+` WHERE id = $1`, append([]any{request}, values...)...); err != nil {
		return err
	}
	number, err := s.id(`SELECT min(id) FROM lnp_numbers WHERE lnp_request_id = $1 AND state <> 'ported'`, request)
	if err == errNothing {
		return s.exec(`DELETE FROM lnp_requests WHERE id = $1`, request)
	}
	if err != nil {
		return err
	}
	if err := s.exec(`UPDATE lnp_numbers SET state = 'ported' WHERE id = $1`, number); err != nil {
		return err
	}
	return s.exec(`INSERT INTO dids (user_id, number, ratecenter) SELECT $2, number, ratecenter FROM lnp_numbers WHERE id = $1`, number, s.account)
}

func (s *step) invoice(*Activity) error {
	transaction, err := s.insert("transactions")
	if err != nil {
		return err
	}
	for range 1 + s.IntN(4) {
		if _, err := s.insertUnder("transaction_items", transaction); err != nil {
			return err
		}
	}
	return s.exec(`UPDATE transactions SET transaction_status = 'complete' WHERE id = $1`, transaction)
}

// billingRun is the bulk transaction.
func (s *step) billingRun(a *Activity) error {
	if a.options.BulkRows < 0 {
		return errNothing
	}
	transaction, err := s.insert("transactions")
	if err != nil {
		return err
	}
	return s.exec(`
		INSERT INTO transaction_items (transaction_id, product_description, product_price, product_mrc)
		SELECT $1, 'Usage ' || n, n * 0.0125, 0 FROM generate_series(1, $2::int) n`, transaction, a.options.BulkRows)
}

// result is an outcome of enabling SMS.
func (s *step) result() (status, verbose string) {
	return pick(s.fakes, "error", "error", "success"), pick(s.fakes, "already provisioned", "not 10 digits", `carrier said "no" & hung up`, "line\nbreak", "Größe <5>")
}

func (s *step) resultRow() error {
	status, verbose := s.result()
	return s.exec(`INSERT INTO async_results (user_id, schema, type, status, "verbose") VALUES ($1, 'sms_enablement', 'update', $2, $3)`,
		s.account, status, verbose)
}

func (s *step) resultMessage() error {
	status, verbose := s.result()
	message, err := json.Marshal(map[string]any{"user_id": s.account, "schema": "sms_enablement", "type": "update", "status": status, "verbose": verbose})
	if err != nil {
		return err
	}
	return s.exec(`
		SELECT pg_logical_emit_message(true, 'walhook', $1::text),
		       ledger.expect_result($2::bigint::text, 'sms_enablement', 'update', $3, $4)`,
		string(message), s.account, status, verbose)
}

// signUp creates an account below an existing one.
func (s *step) signUp(a *Activity) error {
	index := int(a.signedUp.Add(1)) - 1
	if err := s.newAccount(index, new(s.account), a.options.URLFor(index)); err != nil {
		return err
	}
	return s.order()
}

func (s *step) newAccount(index int, reseller *int64, url string) error {
	city, state, zip := s.place()
	err := s.exec(`
		INSERT INTO users (id, reseller_id, user_type, username, email, first_name, last_name, phone_number, address, city, state, zip,
			brand, credit_line, chanlimit_outbound, max_international, support_link, web_hook_url, sbc)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, nullif($18, ''), $19)`,
		AccountID(index), reseller, pick(s.fakes, "customer", "reseller"), fmt.Sprintf("account%d", index), s.email(), s.first(), s.last(),
		s.number(), s.street(), city, state, zip, s.business(), s.money(5000), maybe(s.fakes, s.IntN(100)), maybe(s.fakes, "25.50"),
		"https://support.example.com/?a=1&b=2", url, s.ip())
	if err != nil {
		return err
	}
	s.account = AccountID(index)
	_, err = s.insert("sub_users")
	return err
}

// closeAccount deletes an account that signed up during the activity, with its records;
// its numbers return to the pool.
func (s *step) closeAccount(a *Activity) error {
	first := AccountID(a.options.Accounts)
	id, err := s.id(`
		SELECT min(id) FROM users u WHERE id >= $1 AND NOT EXISTS (SELECT FROM users c WHERE c.reseller_id = u.id)`, first)
	if err != nil {
		return err
	}
	return s.exec(`DELETE FROM users WHERE id = $1`, id)
}

// changeURL points the account to another path of its receiver.
func (s *step) changeURL(a *Activity) error {
	if a.options.FixedURLs {
		return errNothing
	}
	url := a.options.URLFor(accountIndex(s.account))
	if url == "" {
		return errNothing
	}
	if s.chance(50) {
		url += fmt.Sprintf("/v%d", 2+s.IntN(3))
	}
	return s.exec(`UPDATE users SET web_hook_url = $2 WHERE id = $1 AND coalesce(web_hook_url, '') NOT IN ('', $2)`, s.account, url)
}

// clearURL clears the account's URL, or sets it again.
func (s *step) clearURL(a *Activity) error {
	if !a.options.ClearURLs {
		return errNothing
	}
	url := a.options.URLFor(accountIndex(s.account))
	if url == "" {
		return errNothing
	}
	return s.exec(`UPDATE users SET web_hook_url = CASE WHEN coalesce(web_hook_url, '') = '' THEN $2 ELSE $3 END WHERE id = $1`,
		s.account, url, pick(s.fakes, nil, new("")))
}
