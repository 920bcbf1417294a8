package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/outbox"
	"walhook/schemas/catalog"
)

// The files that init writes.
const (
	settingsName     = "walhook.yaml"
	catalogName      = "catalog.yaml"
	scriptName       = "walhook.sql"        // for source and outbox on one server
	sourceScriptName = "walhook-source.sql" // for two servers
	outboxScriptName = "walhook-outbox.sql"
)

// initPlan is what init found out, and what it makes of it.
type initPlan struct {
	*initRequest
	catalog   *catalog.Catalog
	draft     []byte // nil if --catalog names one
	onSource  *source.AccessPlan
	onOutbox  *outbox.AccessPlan
	oneServer bool
	files     *newFiles
	notes     []string
	restart   []string // servers to restart

	sourcePassword, outboxPassword password
	key, token                     string // of the settings
}

// password is the password of a role of walhook.
type password struct {
	text string // "" for none in the configuration file
	made bool   // the role does not exist yet: psql asks for it
}

func (p *initPlan) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

// choosePasswords takes the passwords that a URL has for walhook's roles, and makes one
// for a role that does not exist. One of a role that exists would be a guess.
func (p *initPlan) choosePasswords() {
	given := func(role string, addresses ...databaseURL) (string, bool) {
		for _, a := range addresses {
			if a.user == role && a.passworded {
				return a.password, true
			}
		}
		return "", false
	}
	choose := func(role string, exists bool, addresses ...databaseURL) password {
		text, ok := given(role, addresses...)
		if !ok && !exists {
			text = secretText(24)
		}
		return password{text, !exists}
	}
	known := func(a databaseURL, given bool, role string) bool { return given && a.user == role }
	if p.oneServer {
		p.sourcePassword = choose(p.sourceUser, p.onSource.Exists, p.source, p.outbox)
		p.outboxPassword = p.sourcePassword
		if p.outboxUser != p.sourceUser {
			p.outboxPassword = choose(p.outboxUser, p.onOutbox.Exists, p.outbox, p.source)
		}
	} else {
		p.sourcePassword = choose(p.sourceUser, p.onSource.Exists, p.source)
		p.outboxPassword = choose(p.outboxUser, p.onOutbox.Exists, p.outbox)
	}
	if p.sourcePassword.text == "" && !known(p.source, true, p.sourceUser) {
		p.note("role %s exists on the source, and its password is not known here: put it into the source's URL in %s", p.sourceUser, settingsName)
	}
	if p.outboxPassword.text == "" && !known(p.outbox, p.outboxGiven, p.outboxUser) && !known(p.source, p.oneServer, p.outboxUser) {
		p.note("role %s exists on the outbox's server, and its password is not known here: put it into the outbox's URL in %s", p.outboxUser, settingsName)
	}
}

// writeFiles makes the content of every file.
func (p *initPlan) writeFiles() {
	p.key, p.token = base64.StdEncoding.EncodeToString(randomBytes(32)), secretText(32)
	p.files.add(settingsName, p.settingsFile(), 0o600)
	if p.draft != nil {
		p.files.add(catalogName, p.draft, 0o644)
	}
	if p.oneServer {
		p.files.add(scriptName, p.script(true, true), 0o644)
	} else {
		p.files.add(sourceScriptName, p.script(true, false), 0o644)
		p.files.add(outboxScriptName, p.script(false, true), 0o644)
	}
	for _, warning := range p.onSource.Warnings {
		p.note("%s", warning)
	}
	if p.onOutbox.Unseen != nil {
		p.note("the outbox's server lets nobody look who is known here (%v): its part of the SQL file assumes that neither role nor database exists, and leaves alone what does", p.onOutbox.Unseen)
	}
}

// catalogPath is the catalog that the configuration file names: an absolute path, or a
// built-in one.
func (p *initPlan) catalogPath() string {
	if p.draft != nil {
		return filepath.Join(p.dir, catalogName)
	}
	if catalog.BuiltIn(p.catalogName) != nil {
		return p.catalogName
	}
	path, err := filepath.Abs(p.catalogName)
	if err != nil {
		return p.catalogName
	}
	return path
}

// settingsFile returns the configuration file.
func (p *initPlan) settingsFile() []byte {
	var b strings.Builder
	b.WriteString(`# The settings of walhook: docs/CONFIGURATION.md lists all of them. This file holds
# passwords, the key and the token: only walhook's user may read it.
`)
	set := func(name, value string) { fmt.Fprintf(&b, "%s: %s\n", name, yamlString(value)) }
	set("source", p.sourceURL())
	set("outbox", p.outboxURL())
	set("catalog", p.catalogPath())
	for _, one := range []struct{ name, value string }{{"slot", p.settings.Slot}, {"publication", p.settings.Publication}} {
		if one.value != "walhook" {
			set(one.name, one.value)
		}
	}
	b.WriteString("\n# It encrypts the signing secrets in the outbox. Keep a copy: nobody can read them without it.\n")
	set("secret-key", p.key)
	b.WriteString("# The operator's token of the API.\n")
	set("admin-token", p.token)
	b.WriteString(`
# walhook sends to public addresses only. This allows receivers in other networks:
# allow-cidr: [127.0.0.0/8]
`)
	return []byte(b.String())
}

func (p *initPlan) sourceURL() string {
	return p.source.as(p.sourceUser).with(p.sourcePassword.text).String()
}

func (p *initPlan) outboxURL() string {
	return p.outbox.as(p.outboxUser).with(p.outboxPassword.text).String()
}

// yamlString returns text as a double-quoted scalar of YAML, which JSON's strings are.
func yamlString(text string) string {
	quoted, _ := json.Marshal(text) // fails for no string
	return string(quoted)
}

// script returns the SQL file for the source's server, the outbox's, or one that is both.
func (p *initPlan) script(ofSource, ofOutbox bool) []byte {
	var s dbaScript
	file, server, database := scriptName, p.source, p.onSource.Database
	switch {
	case !ofOutbox:
		file = sourceScriptName
	case !ofSource:
		file, server, database = outboxScriptName, p.outbox, "postgres"
	}
	s.comment("What a DBA runs once, as a superuser, before 'walhook setup':")
	s.WriteString("--\n")
	s.WriteString("--   " + printable(server.psql(database, file)) + "\n")
	s.WriteString("--\n")
	s.comment("It stops at the first error, and may run again: it leaves alone what is there. The file holds no password.")
	if !p.oneServer {
		other := outboxScriptName
		if !ofSource {
			other = sourceScriptName
		}
		s.comment("Source and outbox are on two servers: %s is for the other one. The order does not matter.", other)
	}
	s.WriteString("\n\\set ON_ERROR_STOP on\n\\pset pager off\n")
	if ofSource {
		s.connect(p.onSource.Database)
	} else {
		s.begin()
	}
	var settings doctor.Steps
	if ofSource {
		settings = append(settings, p.onSource.Settings...)
		s.section("The role that reads the source.")
		if len(p.onSource.Role) == 0 {
			s.comment("%s exists and has what it needs.", p.sourceUser)
		}
		s.newRole(p.sourceUser, p.onSource.Role, p.sourcePassword.made)
	}
	if ofOutbox {
		settings = append(settings, p.onOutbox.Settings...)
		if !ofSource || p.outboxUser != p.sourceUser {
			s.section("The role that keeps the outbox.")
			if len(p.onOutbox.Role) == 0 {
				s.comment("%s exists and has what it needs.", p.outboxUser)
			}
			s.newRole(p.outboxUser, p.onOutbox.Role, p.outboxPassword.made)
		}
		if len(p.onOutbox.Database) > 0 {
			s.section("The outbox's database.")
			s.steps(p.onOutbox.Database)
		}
	}
	if ofSource {
		p.sourceScript(&s)
	}
	if ofOutbox && len(p.onOutbox.Contents) > 0 {
		s.section("The outbox that is there already.")
		s.connect(p.outbox.database)
		s.steps(p.onOutbox.Contents)
	}
	restart := false
	if len(settings) > 0 {
		s.section("Settings of the server.")
		s.steps(settings)
		for _, step := range settings {
			restart = restart || step.Restart
		}
	}
	if ofSource && len(p.onSource.Advice) > 0 {
		var statements []string
		note := ""
		for _, step := range p.onSource.Advice {
			statements = append(statements, step.Text)
			if step.Note != "" {
				note = " (" + step.Note + ")"
			}
		}
		s.section("To think about: a slot that nobody reads fills the disk, unless the server has a limit%s:", note)
		s.advice(statements...)
	}
	s.askPasswords(settingsName)
	if restart {
		s.WriteString("\n\\echo 'Restart this server now: the settings take effect with that.'\n")
		p.restart = append(p.restart, server.shown())
	}
	s.WriteString("\\echo 'Done. Next: walhook setup'\n")
	return s.Bytes()
}

// sourceScript writes what the source's tables need.
func (p *initPlan) sourceScript(s *dbaScript) {
	if len(p.onSource.Rights) > 0 {
		s.section("What the role may do: read the catalog's tables, and nothing else.")
		s.steps(p.onSource.Rights)
	}
	if len(p.onSource.Tables) > 0 {
		s.section("The tables, and their publication. REPLICA IDENTITY FULL puts old rows into the WAL, so that a delete carries the record. " +
			"Each statement waits at most three seconds for a table's lock: if one does not get it, run the file again.")
		if slices.ContainsFunc(p.onSource.Settings, func(step doctor.Step) bool { return step.Restart }) {
			s.comment("The server may warn that wal_level is insufficient: the settings below take effect with a restart.")
		}
		s.steps(p.onSource.Tables)
	}
	for _, warning := range p.onSource.Warnings {
		s.section("Note: %s.", warning)
	}
	for i, one := range p.onSource.Suggestions {
		if i == 0 || one.Why != p.onSource.Suggestions[i-1].Why {
			s.section("Optional: %s:", one.Why)
		}
		s.advice(one.SQL)
	}
}

// commands returns what the user runs now.
func (p *initPlan) commands() []string {
	var commands []string
	path := func(name string) string { return filepath.Join(p.dir, name) }
	if p.oneServer {
		commands = append(commands, p.source.psql(p.onSource.Database, path(scriptName)))
	} else {
		commands = append(commands, p.source.psql(p.onSource.Database, path(sourceScriptName)), p.outbox.psql("postgres", path(outboxScriptName)))
	}
	config := shellWord(path(settingsName))
	commands = append(commands, "walhook setup --config "+config)
	if started := p.startCommands(); len(started) > 0 {
		return append(commands, started...)
	}
	return append(commands, "walhook run --config "+config)
}
