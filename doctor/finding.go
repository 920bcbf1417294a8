package doctor

// Status is the result of a check.
type Status string

// The results of a check.
const (
	OK      Status = "ok"
	Warning Status = "warning" // walhook works, but an operator should act
	Failed  Status = "failed"  // walhook cannot start, or loses or delays something
	Skipped Status = "skipped" // the check was not made; the evidence says why
)

// rank orders results from the best to the worst.
func (s Status) rank() int {
	return map[Status]int{Skipped: 0, OK: 1, Warning: 2, Failed: 3}[s]
}

// Finding is the result of one check, with its evidence and its fix.
type Finding struct {
	// ID names the check and does not change between versions:
	// source.wal_level.
	ID     string `json:"id"`
	Status Status `json:"status"`
	// Evidence is what the check saw: figures and names, no secrets.
	Evidence string `json:"evidence"`
	// Fix lists the steps to take, all of them and in this order. It is empty when the
	// check is ok or was skipped.
	Fix []Step `json:"mend,omitempty"`
}

// Bad reports whether there is something to fix.
func (f Finding) Bad() bool { return f.Status == Warning || f.Status == Failed }

// Kind is the kind of a Step's text.
type Kind string

// The kinds of steps.
const (
	SQL     Kind = "sql"     // a statement for the database that On names
	Command Kind = "command" // a command of walhook, with the same settings
	Shell   Kind = "shell"   // a command of the operating system
	Setting Kind = "setting" // a setting of walhook, as a flag: --slot=walhook
	Address Kind = "address" // a parameter of the URL that On names: sslmode=verify-full
	Catalog Kind = "catalog" // an entry of the catalog file, in its YAML
)

// Step is one step of a fix.
type Step struct {
	Kind Kind `json:"kind"`
	// On is the database: source or outbox; "" for steps outside a database.
	On   string `json:"on,omitempty"`
	Text string `json:"text"`
	// Needs is the right that the step needs; "" if walhook's role has it.
	Needs string `json:"needs,omitempty"`
	// Restart says that the server needs a restart afterwards.
	Restart bool `json:"restart,omitempty"`
	// Note is the cost of the step, or when another one is better.
	Note string `json:"note,omitempty"`
	// Unless is an SQL condition under which a statement that cannot run twice was run
	// before; "" for a statement that can.
	Unless string `json:"-"`
}

// Superuser is the Needs of a Step that only a superuser can run.
const Superuser = "a superuser"

// Steps are the steps of one fix.
type Steps []Step

// Run returns the step of a walhook command.
func Run(command string) Steps { return Steps{{Kind: Command, Text: command}} }

// Ask returns the step of an SQL statement.
func Ask(where, needs, sql string) Steps {
	return Steps{{Kind: SQL, On: where, Text: sql, Needs: needs}}
}

// Configure returns the steps that change a setting of the server, with a restart if
// the setting needs one.
func Configure(where, name, value string, restart bool) Steps {
	steps := Steps{{Kind: SQL, On: where, Needs: Superuser, Restart: restart,
		Text: "ALTER SYSTEM SET " + name + " = " + QuoteLiteral(value)}}
	if !restart {
		steps = append(steps, Step{Kind: SQL, On: where, Needs: Superuser, Text: "SELECT pg_catalog.pg_reload_conf()"})
	}
	return steps
}
