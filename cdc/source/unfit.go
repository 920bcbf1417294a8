package source

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Unfit is what of a catalog the source has no more, or not as the catalog says.
type Unfit struct {
	// Account says that the accounts cannot be read: nothing of the catalog can be used.
	Account bool
	// AccountColumns says that the account table lacks other columns that are named.
	AccountColumns bool
	// Schemas are those whose table, key or owner is gone, is not published, or may not
	// be read.
	Schemas []string
	// Through are the others that are owned through one of Schemas.
	Through []string
	// Cut are the others whose tables lack columns of fields.
	Cut []string
	// Tables of rows that exist and cannot be followed.
	Tables []catalog.RowTable
}

// FindUnfit says what of the catalog of cfg the source cannot be followed by.
func FindUnfit(ctx context.Context, cfg Config) (u Unfit, err error) {
	cfg = cfg.WithDefaults()
	r, err := NewIntrospector(ctx, cfg)
	if err != nil {
		return u, err
	}
	defer r.Close(ctx)
	tables, err := lookAtTables(ctx, r.conn, cfg, "")
	if err != nil {
		return u, err
	}
	_, unpublished, err := r.loggedTables(ctx, cfg)
	if err != nil {
		return u, err
	}
	bad := map[schemas.TableName]bool{}
	for _, t := range tables {
		bad[t.name] = t.fault(cfg) != nil || t.exists && (!t.logged || slices.Contains(unpublished, t.name))
		if t.name == cfg.Catalog.Account.Table && t.description != nil {
			relation := relationOf(t.description)
			a := cfg.Catalog.Account
			u.Account = relation.Column(a.ID) < 0 || relation.Column(a.URL) < 0
			u.AccountColumns = slices.ContainsFunc([]string{a.Parent, a.Secret, a.Brand.Name, a.Brand.Accent, a.Brand.Support},
				func(column string) bool { return column != "" && relation.Column(column) < 0 })
		}
	}
	u.Account = u.Account || bad[cfg.Catalog.Account.Table]
	for _, of := range catalog.RowTables() {
		if bad[cfg.Catalog.RowTable(of)] {
			u.Tables = append(u.Tables, of)
		}
	}
	err = pgx.BeginTxFunc(ctx, r.conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err := newRows(ctx, tx, cfg)
		if err != nil {
			return err
		}
		source := &gapSource{rows: rows}
		for _, s := range cfg.Catalog.Schemas {
			table := rows.tables[s.Name]
			switch {
			case bad[s.Table] || table.refused != "":
				u.Schemas = append(u.Schemas, s.Name)
			case source.Plan(s.Name) == nil || throughBad(cfg.Catalog, s, bad):
				u.Through = append(u.Through, s.Name)
			case slices.ContainsFunc(s.Fields, func(f catalog.Field) bool { return table.plan.Relation.Column(f.Column) < 0 }):
				u.Cut = append(u.Cut, s.Name)
			}
		}
		return nil
	})
	if err != nil {
		return u, fmt.Errorf("look whether the source has what the catalog in force names: %w", err)
	}
	return u, nil
}

// throughBad reports whether a schema's records are of such a table, or owned through one.
func throughBad(c *catalog.Catalog, s *catalog.Schema, bad map[schemas.TableName]bool) bool {
	for depth := len(c.Schemas); s != nil && depth > 0; depth-- {
		if bad[s.Table] {
			return true
		}
		s = c.Schema(s.Owner.Schema)
	}
	return false
}
