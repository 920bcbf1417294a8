package doctor

// Status is how a check came out.
type Status string

// The outcomes of a check.
const (
	OK      Status = "ok"
	Warning Status = "warning" // walhook works, and somebody should know
	Failed  Status = "failed"  // walhook cannot start, or loses or holds up something
	Skipped Status = "skipped" // not made; the evidence says why
)

// rank orders outcomes from the best to the worst.
func (s Status) rank() int {
	return map[Status]int{Skipped: 0, OK: 1, Warning: 2, Failed: 3}[s]
}

// Finding is the outcome of one check.
type Finding struct {
	// ID names the check and does not change between versions:
	// source.wal_level.
	ID     string `json:"id"`
	Status Status `json:"status"`
	// Evidence is what was seen: figures and names, no secrets.
	Evidence string `json:"evidence"`
	// Fix is what to do, all of it and in this order. None when the check is
	// ok or was skipped.
	Fix []Step `json:"mend,omitempty"`
}

// Bad says whether there is something to fix.
func (f Finding) Bad() bool { return f.Status == Warning || f.Status == Failed }

// Kind says what the text of a Step is.
type Kind string

// The kinds of steps.
const (
	SQL     Kind = "sql"     // a statement for the database that On names
	Command Kind = "command" // of walhook, with the settings of this one
	Shell   Kind = "shell"   // of the operating system
	Setting Kind = "setting" // of walhook, as a flag: --slot=walhook
	Address Kind = "address" // a parameter of the URL that On names: sslmode=verify-full
	Catalog Kind = "catalog" // an entry of the catalog file, in its YAML
)

// Step is a part of what fixes a fault.
type Step struct {
	Kind Kind `json:"kind"`
	// On is where: source or outbox; "" where there is no choice.
	On   string `json:"on,omitempty"`
	Text string `json:"text"`
	// Needs is the right that it takes; "" for those that walhook's role has.
	Needs string `json:"needs,omitempty"`
	// Restart says that the server has to be restarted afterwards.
	Restart bool `json:"restart,omitempty"`
	// Note is what it costs, or when another way is better.
	Note string `json:"note,omitempty"`
}

// Superuser is what a Step needs that no lesser role can do.
const Superuser = "a superuser"

// Steps are the parts of what fixes one fault.
type Steps []Step

// Run is a command of walhook's.
func Run(command string) Steps { return Steps{{Kind: Command, Text: command}} }

// Ask is a statement.
func Ask(where, needs, sql string) Steps {
	return Steps{{Kind: SQL, On: where, Text: sql, Needs: needs}}
}

// Configure changes a setting of the server: at once, or with a restart.
func Configure(where, name, value string, restart bool) Steps {
	steps := Steps{{Kind: SQL, On: where, Needs: Superuser, Restart: restart,
		Text: "ALTER SYSTEM SET " + name + " = " + QuoteLiteral(value)}}
	if !restart {
		steps = append(steps, Step{Kind: SQL, On: where, Needs: Superuser, Text: "SELECT pg_catalog.pg_reload_conf()"})
	}
	return steps
}
