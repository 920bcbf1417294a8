package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// A publication that was altered and altered back looks as before, and what was changed in
// between was never published. But a table that is taken out and put back, or gets another
// row filter or column list, has another row in pg_publication_rel, and each ALTER of the
// publication itself writes its row in pg_publication anew. So the outbox remembers these
// rows with each snapshot of the source that it remembers.

// published says by which rows of the system catalog the tables of the catalog are published.
type published struct {
	// Xmin is the transaction that wrote the publication's row.
	Xmin string `json:"xmin"`
	// Options is that row: name, owner and options.
	Options string `json:"options"`
	// Members are the rows that publish something, by what they publish.
	Members map[string]publishedMember `json:"members"`
	// Tables are those that the catalog names, by their OIDs. Another one may have taken the
	// name of one that was published, with rows that nobody was told of.
	Tables map[string]uint32 `json:"tables,omitempty"`

	leaves []publishedLeaf
}

// publishedMember is a row of the system catalog that publishes a table, the tables of a
// schema, or every table.
type publishedMember struct {
	OID uint32 `json:"oid"`
	// Part is a row filter and a column list; "" for the whole table.
	Part string `json:"part,omitempty"`
}

// publishedLeaf is a table with rows: one of the catalog, or a partition or child of it.
type publishedLeaf struct {
	table   schemas.TableName // the one of the catalog
	targets []string          // what may publish it: keys of Members
	logged  bool              // its changes reach the WAL; if not, nothing publishes it
}

// everyTable is the target of FOR ALL TABLES.
const everyTable = "all"

const (
	publicationRowSQL = `SELECT oid, xmin::text, to_jsonb(p)::text, puballtables FROM pg_publication p WHERE pubname = $1`

	// A partition is published through each table above it, a child of another table by
	// itself alone.
	publishedLeavesSQL = `
		WITH RECURSIVE tree (root, oid) AS (
			SELECT c.oid, c.oid FROM unnest($1::text[], $2::text[]) AS catalog (namespace, name)
			JOIN pg_namespace n ON n.nspname = catalog.namespace
			JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = catalog.name AND c.relkind IN ('r', 'p')
			UNION
			SELECT tree.root, i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
		), above (oid, via) AS (
			SELECT oid, oid FROM tree
			UNION
			SELECT above.oid, i.inhparent FROM above JOIN pg_class c ON c.oid = above.via AND c.relispartition JOIN pg_inherits i ON i.inhrelid = c.oid
		), published (oid, relations, namespaces) AS (
			SELECT above.oid, array_agg(c.oid), array_agg(DISTINCT c.relnamespace) FROM above JOIN pg_class c ON c.oid = above.via GROUP BY above.oid
		)
		SELECT n.nspname::text, r.relname::text, r.oid, p.relations, p.namespaces, l.relpersistence = 'p'
		FROM tree JOIN published p ON p.oid = tree.oid JOIN pg_class l ON l.oid = tree.oid
		JOIN pg_class r ON r.oid = tree.root JOIN pg_namespace n ON n.oid = r.relnamespace
		WHERE l.relkind = 'r'
		ORDER BY 1, 2`

	memberRowsSQL = `SELECT 'r' || prrelid, oid, %s FROM pg_publication_rel WHERE prpubid = $1 AND prrelid = ANY ($2::oid[])`

	// PostgreSQL has row filters, column lists and TABLES IN SCHEMA since 15.
	memberPartSQL    = `concat_ws(' ', pg_get_expr(prqual, prrelid), prattrs::text)`
	memberSchemasSQL = `SELECT 'n' || pnnspid, oid, '' FROM pg_publication_namespace WHERE pnpubid = $1`
)

// readPublished reads by which rows the catalog's tables are published. A publication that
// does not exist has none.
func readPublished(ctx context.Context, q querier, major int, cfg Config) (p published, err error) {
	p.Members, p.Tables = map[string]publishedMember{}, map[string]uint32{}
	var publication uint32
	var all bool
	err = q.QueryRow(ctx, publicationRowSQL, cfg.Publication).Scan(&publication, &p.Xmin, &p.Options, &all)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("read publication %s: %w", cfg.Publication, err)
	}
	if all {
		p.Members[everyTable] = publishedMember{OID: publication}
	}
	relations, err := p.readLeaves(ctx, q, cfg)
	if err != nil {
		return p, fmt.Errorf("read what may publish the catalog's tables: %w", err)
	}
	part := "''"
	if major >= 15 {
		part = memberPartSQL
		err = p.readMembers(ctx, q, memberSchemasSQL, publication)
	}
	if err == nil {
		err = p.readMembers(ctx, q, fmt.Sprintf(memberRowsSQL, part), publication, relations)
	}
	if err != nil {
		return p, fmt.Errorf("read what publication %s holds: %w", cfg.Publication, err)
	}
	return p, nil
}

// readLeaves returns the tables whose rows in pg_publication_rel matter.
func (p *published) readLeaves(ctx context.Context, q querier, cfg Config) (relations []uint32, err error) {
	namespaces, names := tableNames(cfg.Catalog)
	rows, err := q.Query(ctx, publishedLeavesSQL, namespaces, names)
	if err != nil {
		return nil, err
	}
	var table schemas.TableName
	var root uint32
	var tables, above []uint32
	var logged bool
	_, err = pgx.ForEachRow(rows, []any{&table.Namespace, &table.Name, &root, &tables, &above, &logged}, func() error {
		leaf := publishedLeaf{table: table, targets: []string{everyTable}, logged: logged}
		for _, oid := range tables {
			leaf.targets = append(leaf.targets, fmt.Sprintf("r%d", oid))
		}
		for _, oid := range above {
			leaf.targets = append(leaf.targets, fmt.Sprintf("n%d", oid))
		}
		p.leaves = append(p.leaves, leaf)
		p.Tables[table.String()] = root
		relations = append(relations, tables...)
		return nil
	})
	slices.Sort(relations)
	return slices.Compact(relations), err
}

func (p *published) readMembers(ctx context.Context, q querier, sql string, args ...any) error {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	var target string
	var member publishedMember
	_, err = pgx.ForEachRow(rows, []any{&target, &member.OID, &member.Part}, func() error {
		p.Members[target] = member
		return nil
	})
	return err
}

// text is what the outbox remembers.
func (p published) text() string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // texts and numbers
	}
	return string(text)
}

// alteration is how what is published differs from what was, although it looks alike.
type alteration struct {
	// tables of the catalog were published, and have not been all the time.
	tables []schemas.TableName
	// options says that an option of the publication was altered and altered back.
	options bool
	// narrowed says that a table has got another row filter or column list and still has
	// it, or has become unlogged. The logs and doctor name it, and once that is over it is
	// one of tables.
	narrowed bool
}

// since compares with what the outbox remembers; "" for nothing.
func (p published) since(remembered string) (a alteration, err error) {
	if remembered == "" {
		return a, nil
	}
	var before published
	if err := json.Unmarshal([]byte(remembered), &before); err != nil {
		return a, fmt.Errorf("read what the publication held: %w", err)
	}
	for _, leaf := range p.leaves {
		switch became := before.became(p, leaf.targets); {
		case became == partOfIt || became == interrupted && !leaf.logged:
			a.narrowed = true
		case became == interrupted, became == added && before.replaced(p, leaf.table):
			if !slices.Contains(a.tables, leaf.table) {
				a.tables = append(a.tables, leaf.table)
			}
		}
	}
	// Another owner, and options that walhook sets itself, are seen in the row.
	a.options = p.Xmin != before.Xmin && p.Options == before.Options
	return a, nil
}

// replaced reports whether another table has the name of one that was published. Its rows
// came into it while it was not, and those of the former one left with it.
func (p *published) replaced(now published, table schemas.TableName) bool {
	before, known := p.Tables[table.String()]
	return known && before != now.Tables[table.String()]
}

// became says what became of a table.
func (p published) became(now published, targets []string) continuity {
	was, part := false, false
	for _, target := range targets {
		before, ok := p.Members[target]
		after, still := now.Members[target]
		if ok && still && before.OID == after.OID {
			return stayed
		}
		was = was || ok
		part = part || still && after.Part != "" && (!ok || before.Part != after.Part)
	}
	switch {
	case !was:
		return added
	case part && !slices.ContainsFunc(targets, func(target string) bool { m, ok := now.Members[target]; return ok && m.Part == "" }):
		return partOfIt
	}
	return interrupted
}

type continuity byte

const (
	stayed      continuity = iota
	added                  // somebody published it
	partOfIt               // published again, but another part of it
	interrupted            // published again, or not at all
)
