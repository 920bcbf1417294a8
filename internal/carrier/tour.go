package carrier

import "errors"

// tour is the beginning of the activity: every schema and type for some accounts, in few
// transactions, so that even a short demo shows all of them.
func (a *Activity) tour() []work {
	var direct, children []string
	for _, t := range tables {
		switch {
		case t.name == "users":
		case t.parent == "":
			direct = append(direct, t.name)
		default:
			children = append(children, t.name)
		}
	}
	stops := []action{
		{name: "tour: results", run: func(s *step, _ *Activity) error { return errors.Join(s.resultRow(), s.resultMessage()) }},
		{name: "tour: own records", run: visit((*step).insertOne, direct)},
		{name: "tour: records of records", run: visit((*step).insertOne, children)},
		{name: "tour: changes", run: visit((*step).update, direct)},
		{name: "tour: changes of records of records", run: visit((*step).update, children)},
		{name: "tour: profile", run: func(s *step, _ *Activity) error { return s.update("users") }},
		{name: "tour: sign up", run: (*step).signUp},
		{name: "tour: move", run: (*step).move},
		{name: "tour: removals of records of records", run: visit((*step).delete, children)},
		{name: "tour: removals", run: visit((*step).delete, direct)},
		{name: "tour: close account", run: (*step).closeAccount},
	}
	var plan []work
	for _, stop := range stops {
		for account := range min(a.options.Tour, a.options.Accounts) {
			plan = append(plan, work{action: stop, account: account, other: (account + 1) % a.options.Accounts})
		}
	}
	return plan
}

// visit returns an action that does one thing for each of some schemas, in one
// transaction.
func visit(do func(s *step, schema string) error, schemas []string) func(*step, *Activity) error {
	return func(s *step, _ *Activity) error {
		for _, schema := range schemas {
			err := do(s, schema)
			if errors.Is(err, errNothing) { // the account has none left
				err = errors.Join(s.insertOne(schema), do(s, schema))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func (s *step) insertOne(schema string) error {
	_, err := s.insert(schema)
	return err
}
