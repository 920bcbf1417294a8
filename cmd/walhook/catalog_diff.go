package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

const catalogDiffLong = `Says what a changed catalog file means before 'walhook setup' puts it in force:
what begins, ends and changes, which rows are read once, and which statements the
source needs. FILE is a path or a built-in catalog (carrier, platform); without it
the file is the one that --catalog names.

It compares the file with the catalog in force, which is in the outbox, or with
the one that --from names. With --source it reads the system catalog of that
database, for the statements and the estimated numbers of rows. It changes
nothing.

While rows are read, events wait: about as long as 'walhook setup' took for these
tables at first. What account users notice are the parts that begin, end or change.

The exit status is 0 whether or not there are differences, 1 for an error, 2 for
wrong usage or a file that walhook refuses.`

// catalogDifference is what --json prints.
type catalogDifference struct {
	Same    bool             `json:"same"`
	Changes []catalog.Change `json:"changes"`
	// Ends are what accounts have that end for good; null where the account ids stay, or
	// without an outbox and a source.
	Ends *admin.Stakes `json:"ends"`
	// Reads are the tables whose rows are read once, before the catalog is in force.
	Reads []catalogRead `json:"reads"`
	// Statements are those that the source still needs; null without a source.
	Statements []string `json:"statements"`
	accounts   bool     // others may count as accounts
	// Lacks are the names of the file that the source does not have; null without a source.
	Lacks catalog.Faults `json:"errors"`
	// Gap is the one by which walhook is stopped; null for none.
	Gap *diffGap `json:"gap"`
}

type catalogRead struct {
	Schema string `json:"schema"` // "" for the account table
	Table  string `json:"table"`
	Rows   *int64 `json:"rows"` // as the server's statistics estimate; null where they are not known
}

func newCatalogDiffCommand() *cobra.Command {
	var asJSON bool
	var from string
	cmd := &cobra.Command{
		Use:   "diff [FILE]",
		Short: "Say what a changed catalog file means: what begins, ends, is read, and has to be published",
		Long:  catalogDiffLong,
		Example: `  walhook catalog diff catalog.yaml --source postgres://walhook@db/carrier
  walhook catalog diff catalog.yaml --from catalog.yaml.orig
  walhook catalog diff catalog.yaml --outbox postgres://walhook@db2/walhook --json | jq .reads`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, text, err := catalogToCheck(cmd, args)
			if err != nil {
				return usage(err)
			}
			next, err := parsedCatalog(name, text)
			if err != nil {
				return usage(err)
			}
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			former, err := formerCatalog(cmd.Context(), s, from)
			if err != nil {
				return err
			}
			d, err := compareCatalogs(cmd.Context(), s, former, next, catalog.Read(text))
			if err != nil {
				return err
			}
			if d.accounts = otherAccounts(former, next); d.accounts && from == "" {
				if d.Ends, err = endsOf(cmd.Context(), s, next); err != nil {
					return err
				}
			}
			if from == "" {
				if d.Gap, err = gapOf(cmd.Context(), s, next); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), d)
			}
			return d.print(cmd.OutOrStdout())
		},
	}
	addSettings(cmd, "source", "outbox", "publication", "catalog")
	optional(cmd, "source")
	optional(cmd, "outbox")
	cmd.Flags().StringVar(&from, "from", "", "the `file` to compare with (default the catalog in force, from the outbox)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// endsOf says what ends if next is adopted; nil without a source, or where that has no such
// column.
func endsOf(ctx context.Context, s settings, next *catalog.Catalog) (*admin.Stakes, error) {
	if s.Source == "" || s.Outbox == "" {
		return nil, nil
	}
	store, err := outbox.Open(ctx, s.outboxConfig(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return nil, usage(err)
	}
	defer store.Close()
	cfg := s.cdcConfig()
	cfg.Catalog = next
	ends, err := endingAccounts(ctx, cfg, admin.New(store))
	if _, lacks := errors.AsType[*source.Fault](err); lacks {
		return nil, nil
	}
	return &ends, outboxFault(err)
}

// parsedCatalog is a file that must be valid.
func parsedCatalog(name string, text []byte) (*catalog.Catalog, error) {
	c, err := catalog.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not valid, 'walhook catalog check' says all that is wrong: %w", name, err)
	}
	return c, nil
}

func formerCatalog(ctx context.Context, s settings, from string) (*catalog.Catalog, error) {
	if from != "" {
		text, err := catalogText(from)
		if err != nil {
			return nil, usage(err)
		}
		c, err := parsedCatalog(from, text)
		return c, usage(err)
	}
	if s.Outbox == "" {
		return nil, usage(errors.New("nothing to compare with: name the outbox (--outbox, or --source where it is there) or a file (--from)"))
	}
	store, err := outbox.Open(ctx, s.outboxConfig(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return nil, usage(err)
	}
	defer store.Close()
	c, err := store.CatalogInForce(ctx)
	if err == nil && c == nil {
		err = errors.New("the outbox holds no catalog: 'walhook setup' has not run yet, or was run by an older walhook; name a file with --from")
	}
	return c, outboxFault(err)
}

// compareCatalogs describes what next needs when it follows former. file is that of next.
func compareCatalogs(ctx context.Context, s settings, former, next *catalog.Catalog, file *catalog.File) (d catalogDifference, err error) {
	d.Same, d.Changes, d.Reads = former.Same(next), former.ChangesTo(next), []catalogRead{}
	rows := map[schemas.TableName]int64{}
	if s.Source != "" {
		cfg := s.cdcConfig()
		cfg.Catalog = next
		tables, err := source.Inventory(ctx, cfg)
		if err != nil {
			return d, err
		}
		for _, t := range tables {
			rows[t.Name] = t.Rows
		}
		file.Compare(tables)
		d.Lacks = append(catalog.Faults{}, file.Faults()...)
		plan, err := source.PlanSetup(ctx, cfg)
		if err != nil {
			return d, err
		}
		d.Statements = []string{}
		for _, statement := range plan.Statements {
			d.Statements = append(d.Statements, statement.SQL)
		}
	}
	read := func(schema string, table schemas.TableName) {
		one := catalogRead{Schema: schema, Table: table.String()}
		if n := rows[table]; n > 0 {
			one.Rows = &n
		}
		d.Reads = append(d.Reads, one)
	}
	needs := former.DifferenceTo(next)
	if needs.Accounts {
		read("", next.Account.Table)
	}
	for _, name := range needs.Owners {
		read(name, next.Schema(name).Table)
	}
	if d.Changes == nil {
		d.Changes = []catalog.Change{}
	}
	return d, nil
}

func (d catalogDifference) writeEnds(b *strings.Builder) {
	switch {
	case !d.accounts:
	case d.Ends == nil:
		b.WriteString("\nWHAT MAY END FOR GOOD\n" +
			"  Every account that has no row with its id in the new account table or column: its webhooks, secrets,\n" +
			"  API tokens and undelivered events. Going back to the former catalog does not bring them back.\n" +
			"  With --source and --outbox this says how many. 'walhook setup' refuses it without --" + acceptAccountChange + ".\n")
	case d.Ends.Accounts == 0:
		b.WriteString("\nNo account ends: each that has a URL, webhooks or tokens has a row with its id in the new account table or column.\n")
	default:
		fmt.Fprintf(b, "\nWHAT ENDS FOR GOOD\n  %s.\n  Going back to the former catalog does not bring them back. 'walhook setup' refuses this without --%s.\n",
			stakesText(*d.Ends), acceptAccountChange)
	}
}

func (d catalogDifference) print(w io.Writer) error {
	if d.Same {
		_, err := fmt.Fprintln(w, "the two catalogs are the same: nothing changes")
		return err
	}
	var b strings.Builder
	signs := map[string]string{"begins": "+", "ends": "-", "changes": "~"}
	b.WriteString("What changes\n")
	for _, c := range d.Changes {
		fmt.Fprintf(&b, "  %s %s %s", signs[c.Kind], printable(c.What), c.Kind)
		if len(c.Details) > 0 {
			b.WriteString(": " + printable(strings.Join(c.Details, "; ")))
		}
		b.WriteString("\n")
	}
	d.writeEnds(&b)
	b.WriteString("\nWhat is read once, while events wait\n")
	for _, r := range d.Reads {
		what := "accounts"
		if r.Schema != "" {
			what = "keys and owners of " + r.Schema
		}
		fmt.Fprintf(&b, "  %s, from table %s", printable(what), printable(r.Table))
		if r.Rows != nil {
			fmt.Fprintf(&b, ": about %s", doctor.Count(int(*r.Rows), "row"))
		}
		b.WriteString("\n")
	}
	if len(d.Reads) == 0 {
		b.WriteString("  nothing: the file takes effect at once\n")
	}
	if len(d.Lacks) > 0 {
		b.WriteString("\nWhat the source does not have, or cannot give: correct the file or the source before 'walhook setup'\n")
		for _, fault := range d.Lacks {
			fmt.Fprintf(&b, "  %s\n", printable(fault.String()))
		}
	}
	switch {
	case d.Statements == nil, len(d.Statements) == 0 && len(d.Lacks) > 0:
	case len(d.Statements) == 0:
		b.WriteString("\nThe source has all that the file needs.\n")
	default:
		b.WriteString("\nWhat the source still needs ('walhook setup' runs it where its role may)\n")
		for _, sql := range d.Statements {
			fmt.Fprintf(&b, "  %s;\n", sqlLine(sql))
		}
	}
	d.Gap.write(&b)
	then, flag, how := "'walhook setup", "", "without a gap"
	if d.Gap != nil {
		flag, how = " --accept-gap", "after that"
	}
	if len(d.Lacks) > 0 {
		then = "Then " + then
	}
	if d.Ends != nil && d.Ends.Accounts > 0 {
		flag += " --" + acceptAccountChange
	}
	fmt.Fprintf(&b, "\n%s --catalog FILE%s' puts the file in force, %s.\n", then, flag, how)
	_, err := io.WriteString(w, b.String())
	return err
}
