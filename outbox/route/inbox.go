package route

// InboxRow is one event of the inbox.
type InboxRow struct {
	ID       int64
	Account  string
	Above    bool  // for the account's parent account
	Endpoint int64 // 0 for the account's own
	Event    Event
}

// RouteInbox returns the plan of a transaction that appends rows of the inbox. A row
// makes no event when its account has no endpoint or, with Above, no parent account.
func RouteInbox(v *View, rows []InboxRow) *Plan {
	p := NewPlan(v)
	for i := range rows {
		row := &rows[i]
		p.Inbox = append(p.Inbox, row.ID)
		account := row.Account
		if row.Above {
			account = v.Parents[account]
		}
		to := v.Endpoints[account]
		if row.Endpoint != 0 {
			to = v.Webhook(account, row.Endpoint)
		}
		if to == nil {
			p.Skipped[SkipNoEndpoint]++
			continue
		}
		v.add(p, to, row.Event)
	}
	return p
}
