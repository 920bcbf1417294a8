package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"walhook/doctor"
	"walhook/schemas"
)

// dbaScript writes a file for psql. Names in it come from databases, so every
// line is printable text: a line end in a name would end a comment, and what follows it
// would run.
type dbaScript struct {
	bytes.Buffer
	passwords []string // roles that the script creates, and that need a password
}

// comment writes a comment, wrapped.
func (s *dbaScript) comment(format string, args ...any) {
	const width = 100
	line := "--"
	for word := range strings.FieldsSeq(printable(fmt.Sprintf(format, args...))) {
		if len(line)+1+len(word) > width && line != "--" {
			s.WriteString(line + "\n")
			line = "--"
		}
		line += " " + word
	}
	s.WriteString(line + "\n")
}

// section begins a part.
func (s *dbaScript) section(format string, args ...any) {
	s.WriteString("\n")
	s.comment(format, args...)
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// begin writes what every session of the script begins with: it stops at the first error,
// and whoever runs it may have a search_path with schemas of other users.
func (s *dbaScript) begin() {
	s.WriteString("SET search_path = pg_catalog, pg_temp;\nSET lock_timeout = '3s';\n")
}

// connect changes the database.
func (s *dbaScript) connect(database string) {
	if plainName.MatchString(database) {
		fmt.Fprintf(s, "\\connect %s\n", database)
	} else { // a name with = or :// would be a connection string (psql, \connect)
		fmt.Fprintf(s, "\\connect -reuse-previous=on '%s'\n", psqlText("dbname="+conninfoValue(database)))
	}
	s.begin()
}

// psqlText escapes text for a single-quoted argument of a psql command.
func psqlText(text string) string {
	return strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`).Replace(text)
}

// steps writes the statements among the steps.
func (s *dbaScript) steps(steps doctor.Steps) {
	for _, step := range steps {
		if step.Kind == doctor.SQL {
			s.step(step)
		}
	}
}

func (s *dbaScript) step(step doctor.Step) {
	if step.Note != "" {
		s.comment("%s%s:", strings.ToUpper(step.Note[:1]), step.Note[1:])
	}
	if step.Unless == "" {
		fmt.Fprintf(s, "%s;\n", sqlLine(step.Text))
	} else {
		fmt.Fprintf(s, "SELECT %s AS walhook_done \\gset\n\\if :walhook_done\n\\else\n%s;\n\\endif\n", sqlLine(step.Unless), sqlLine(step.Text))
	}
	if step.Restart {
		s.comment("This takes effect when the server is restarted.")
	}
}

// advice writes statements that nobody has to run.
func (s *dbaScript) advice(statements ...string) {
	for _, text := range statements {
		s.WriteString("-- " + sqlLine(text) + ";\n")
	}
}

// newRole writes the steps of a role, and notes that it needs a password if they create
// it.
func (s *dbaScript) newRole(role string, steps doctor.Steps, password bool) {
	for _, step := range steps {
		if step.Unless == "" || !password {
			s.step(step)
			continue
		}
		variable := fmt.Sprintf("walhook_new_%d", len(s.passwords)+1)
		s.passwords = append(s.passwords, role)
		fmt.Fprintf(s, "SELECT NOT %s AS %s \\gset\n\\if :%s\n%s;\n\\endif\n", sqlLine(step.Unless), variable, variable, sqlLine(step.Text))
	}
}

// askPasswords asks for the passwords of the roles that were created. psql sends the
// server only a hash, so that no log has the password. It is the script's end: a typing
// error leaves nothing else undone.
func (s *dbaScript) askPasswords(from string) {
	for i, role := range s.passwords {
		s.section("The password of role %s, as %s has it. psql asks twice for it, and sends the server only a hash. "+
			"If that fails, the rest is done: type only the \\password line in psql.", role, from)
		fmt.Fprintf(s, "\\if :walhook_new_%d\n\\echo 'Password of role %s, as %s has it:'\n\\password %s\n\\endif\n",
			i+1, psqlText(printable(role)), psqlText(printable(from)), schemas.QuoteIdent(role))
	}
}
