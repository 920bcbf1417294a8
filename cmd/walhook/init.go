package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

const initLong = `Writes what an installation begins with: the configuration file with a new
encryption key and operator token, a draft of the catalog, and one SQL file for
a DBA, with everything that 'walhook doctor' and 'walhook setup' would ask for.
Then it prints the commands that follow.

--source connects as any role that may connect, a read-only one too: walhook's
own role need not exist yet. init reads the system catalogs and changes nothing.
If the URL of --source or --outbox has walhook's role and a password, they stay;
otherwise the configuration file gets a new password for a role that the SQL file
creates. The SQL file holds no password: psql asks the DBA for it. init prints no
secret. The directory must not hold any of the files yet.

On a terminal init asks for what is not given. --yes takes the defaults instead.`

// initRequest is what the user wants.
type initRequest struct {
	settings             settings
	source, outbox       databaseURL
	sourceUser           string
	outboxUser           string
	account, catalogName string
	dir                  string
	yes                  bool
	docker               bool
	systemd              bool
	kubernetes           bool
	image                string
	outboxGiven          bool
	tables               []*catalog.Table // of the source; nil before they were read
}

func newInitCommand() *cobra.Command {
	var r initRequest
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write the configuration, the catalog and the SQL for a DBA",
		Long:  initLong,
		Example: `  walhook init
  walhook init --source postgres://readonly@db/carrier --account voip.customer --dir /etc/walhook
  walhook init --source postgres://readonly@db/carrier --dir /etc/walhook --systemd --yes
  walhook init --source postgres://readonly@db/carrier --outbox postgres://walhook@outbox/walhook`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask := newAsker(cmd, r.yes)
			if err := r.read(cmd.Context(), cmd.Flags(), ask); err != nil {
				return err
			}
			files, plan, err := r.plan(cmd.Context(), ask)
			if err != nil {
				return err
			}
			if err := files.write(); err != nil {
				return err
			}
			return plan.tell(cmd.OutOrStdout())
		},
	}
	addSettingFlags(cmd, "source", "outbox", "slot", "publication", "catalog")
	optional(cmd, "source") // asked for, or missed there
	optional(cmd, "outbox")
	flags := cmd.Flags()
	flags.Lookup("outbox").Usage = "the `database` of the outbox, a PostgreSQL URL (default database walhook of the source's server) [" + envName("outbox") + "]"
	flags.Lookup("catalog").Usage = "catalog `file` that exists, or a built-in catalog: carrier or platform (default a draft of the source's tables) [" + envName("catalog") + "]"
	flags.StringVar(&r.sourceUser, "user", "walhook", "`role` that walhook uses on the source")
	flags.StringVar(&r.outboxUser, "outbox-user", "", "`role` that walhook uses on the outbox (default --user)")
	flags.StringVar(&r.account, "account", "", "the `table` of accounts, such as voip.customer (default the best guess)")
	flags.StringVar(&r.dir, "dir", ".", "`directory` to write to; it is created if need be")
	flags.BoolVar(&r.docker, "docker", false, "also write a file for Docker Compose")
	flags.BoolVar(&r.systemd, "systemd", false, "also write a unit for systemd")
	flags.BoolVar(&r.kubernetes, "kubernetes", false, "also write the manifests for Kubernetes, and a file for its Secret")
	flags.StringVar(&r.image, "image", "walhook:latest", "`image` of --docker and --kubernetes")
	flags.BoolVar(&r.yes, "yes", false, "ask nothing, take the defaults")
	return cmd
}

// read takes flags and environment, and asks for what they lack.
func (r *initRequest) read(ctx context.Context, flags *pflag.FlagSet, ask *asker) (err error) {
	// This variable names the file that init is about to write.
	environ := func() []string {
		return slices.DeleteFunc(os.Environ(), func(one string) bool { return strings.HasPrefix(one, envName("config")+"=") })
	}
	if r.settings, err = readInitSettings(flags, environ); err != nil {
		return err
	}
	in, err := inputOf(flags, environ)
	if err != nil {
		return usage(err)
	}
	r.catalogName, _ = settingText(in.values.Get("catalog"))
	if r.settings.Source == "" {
		if r.settings.Source, err = ask.source(&r.settings, func(url string) (err error) {
			r.settings.Source = url
			r.tables, err = source.Inventory(ctx, r.settings.cdcConfig())
			return err
		}); err != nil {
			return err
		}
	}
	if r.source, err = parseDatabaseURL(r.settings.Source); err != nil {
		return usage(fmt.Errorf("--source: %w", err))
	}
	if r.sourceUser, err = ask.text(flags, "user", "Role that walhook uses (created by the SQL file if need be)", r.sourceUser, checkRole); err != nil {
		return err
	}
	r.outboxGiven = r.settings.Outbox != ""
	standard := r.source.as(r.sourceUser).in("walhook")
	if !r.outboxGiven && ask.may {
		answer, err := ask.text(flags, "outbox", "Outbox: URL of its database, better not the source's", standard.shown(), func(text string) error {
			return checkURL(&r.settings, "outbox", lowerScheme(text))
		})
		if err != nil {
			return err
		}
		if r.outboxGiven = answer != standard.shown(); r.outboxGiven {
			r.settings.Outbox = lowerScheme(answer)
		}
	}
	r.outbox = standard
	if r.outboxGiven {
		if r.outbox, err = parseDatabaseURL(r.settings.Outbox); err != nil {
			return usage(fmt.Errorf("--outbox: %w", err))
		}
	}
	if err := checkRole(r.sourceUser); err != nil {
		return usage(fmt.Errorf("--user: %w", err))
	}
	r.outboxUser = cmp.Or(r.outboxUser, r.sourceUser)
	if err := checkRole(r.outboxUser); err != nil {
		return usage(fmt.Errorf("--outbox-user: %w", err))
	}
	if r.dir, err = ask.text(flags, "dir", "Directory to write to", r.dir, nil); err != nil {
		return err
	}
	if r.dir, err = filepath.Abs(r.dir); err != nil {
		return usage(fmt.Errorf("--dir: %w", err))
	}
	return nil
}

// readInitSettings reads the settings of init, whose defaults of source and outbox are
// others than those of other commands.
func readInitSettings(flags *pflag.FlagSet, environ func() []string) (settings, error) {
	s, err := readSettings(flags, environ)
	if err != nil {
		return s, err
	}
	in, err := inputOf(flags, environ)
	if err != nil {
		return s, usage(err)
	}
	if in.origin["outbox"] == "" && in.origin["outbox-file"] == "" {
		s.Outbox = ""
	}
	return s, nil
}

func inputOf(flags *pflag.FlagSet, environ func() []string) (input, error) {
	in := newInput()
	return in, in.load(flags, environ, new([]string))
}

// checkRole refuses names that a role cannot have, or that psql's commands cannot.
func checkRole(name string) error {
	switch {
	case name == "" || len(name) > 63:
		return errors.New("want the name of a role, of 1 to 63 bytes")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the name of a role holds a control character")
	case strings.HasPrefix(name, "pg_"):
		return fmt.Errorf("role %s: PostgreSQL reserves names that begin with pg_", name)
	}
	return nil
}

// plan examines both databases and makes the content of every file.
func (r *initRequest) plan(ctx context.Context, ask *asker) (*newFiles, *initPlan, error) {
	files := &newFiles{dir: r.dir}
	p := &initPlan{initRequest: r, files: files}
	// Before anything else: whoever has an installation there must not wait for this.
	names := []string{settingsName, scriptName, sourceScriptName, outboxScriptName}
	for name, wanted := range map[string]bool{catalogName: r.catalogName == "", composeName: r.docker, unitName: r.systemd, manifestsName: r.kubernetes, secretName: r.kubernetes} {
		if wanted {
			names = append(names, name)
		}
	}
	if err := files.free(names...); err != nil {
		return nil, nil, err
	}
	cfg := r.settings.cdcConfig()
	if err := r.readCatalog(ctx, ask, cfg, p); err != nil {
		return nil, nil, err
	}
	cfg.Catalog = p.catalog
	var err error
	if p.onSource, err = source.PlanAccess(ctx, cfg, r.sourceUser); err != nil {
		return nil, nil, err
	}
	if other := p.onSource.SlotOf; other != "" {
		return nil, nil, usage(fmt.Errorf("slot %s belongs to database %s of this server, so another walhook publishes that: give this one a slot and an outbox of its own, "+
			"such as --slot %s_2 and --outbox with another database's name", r.settings.Slot, other, r.settings.Slot))
	}
	candidates := []string{r.outbox.String(), r.outbox.in("postgres").String()}
	if !r.outboxGiven {
		candidates = nil
	}
	if r.outbox.sameServer(r.source) {
		candidates = append(candidates, r.source.in(r.outbox.database).String(), r.source.String())
	}
	if p.onOutbox, err = outbox.PlanAccess(ctx, candidates, r.outbox.database, r.outboxUser); err != nil {
		return nil, nil, err
	}
	p.oneServer = p.onOutbox.System == p.onSource.System || p.onOutbox.System == "" && r.outbox.sameServer(r.source)
	p.choosePasswords()
	p.writeFiles()
	if err := p.deploymentFiles(); err != nil {
		return nil, nil, err
	}
	return files, p, nil
}

// readCatalog drafts the catalog, or takes the one that --catalog names.
func (r *initRequest) readCatalog(ctx context.Context, ask *asker, cfg source.Config, p *initPlan) error {
	if r.catalogName != "" {
		p.catalog = r.settings.Catalog
		return nil
	}
	var name schemas.TableName
	parse := func(text string) (err error) {
		if text != "" {
			name, err = catalog.ParseTable(text)
		}
		return err
	}
	if err := parse(r.account); err != nil {
		return usage(fmt.Errorf("--account: %w", err))
	}
	tables := r.tables
	if tables == nil {
		var err error
		if tables, err = source.Inventory(ctx, cfg); err != nil {
			return err
		}
	}
	text, err := catalog.Draft(tables, name)
	if err != nil && (r.account != "" || !ask.may) {
		return err
	}
	if r.account == "" && ask.may {
		guess := ""
		if err == nil {
			if c, err := catalog.Parse(text); err == nil {
				guess = c.Account.Table.String()
			}
		}
		answer, err := ask.line("Table of accounts", guess, func(text string) error {
			if err := parse(text); err != nil {
				return err
			}
			_, err := catalog.Draft(tables, name)
			return err
		})
		if err != nil {
			return err
		}
		if answer == guess {
			name = schemas.TableName{}
		}
		if text, err = catalog.Draft(tables, name); err != nil {
			return err
		}
	}
	p.draft = text
	if p.catalog, err = catalog.Parse(text); err != nil {
		return fmt.Errorf("the draft of the catalog: %w", err)
	}
	return nil
}

// secretText returns n random bytes as text that needs no escaping anywhere.
func secretText(n int) string { return base64.RawURLEncoding.EncodeToString(randomBytes(n)) }

func randomBytes(n int) []byte {
	random := make([]byte, n)
	_, _ = rand.Read(random) // never fails
	return random
}

// tell prints what was written and what to do now.
func (p *initPlan) tell(out io.Writer) error {
	var b strings.Builder
	for _, name := range p.files.names() {
		fmt.Fprintf(&b, "wrote %s\n", printable(filepath.Join(p.dir, name)))
	}
	for _, note := range p.notes {
		fmt.Fprintf(&b, "note: %s\n", printable(note))
	}
	if p.draft != nil {
		fmt.Fprintf(&b, "\nRead %s first: what is a guess says so there. If you change which tables it names, move the\nother files away and run init with --catalog %s: the SQL file is for its tables. Then", catalogName,
			printable(shellWord(filepath.Join(p.dir, catalogName))))
	} else {
		b.WriteString("\nNow")
	}
	b.WriteString(" a superuser runs the SQL file")
	if p.sourcePassword.made || p.outboxPassword.made {
		fmt.Fprintf(&b, ", which asks for the\npassword of the new role: it is in %s", settingsName)
	}
	if len(p.restart) > 0 {
		fmt.Fprintf(&b, ". The server %s needs a restart after it", printable(strings.Join(p.restart, " and ")))
	}
	b.WriteString(":\n\n")
	for _, command := range p.commands() {
		fmt.Fprintf(&b, "  %s\n", printable(command))
	}
	_, err := io.WriteString(out, b.String())
	return err
}
