package main

import (
	"context"
	"slices"

	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// catalogForGap is the catalog by which a snapshot is compared with what was known before
// a gap.
type catalogForGap struct {
	catalog *catalog.Catalog
	// whole says that all of it is the given file.
	whole bool
	// accounts says that the accounts are those of the given file.
	accounts bool
	// byFile are the schemas of the catalog in force that are as the given file has them.
	byFile []string
	// ends are those that the given file lacks and the source, too.
	ends []string
}

// catalogOfGap returns the catalog in force, so that what changed in the gap is sent by it,
// as the stream would have. The file of from comes after that, without a gap. What the
// source has no more as the catalog in force says is taken from the file, which may have
// followed a table or column to its new name.
func catalogOfGap(ctx context.Context, from source.Config, store *outbox.Store) (by catalogForGap, err error) {
	file := from.Catalog
	inForce, err := store.CatalogInForce(ctx)
	if err != nil || inForce == nil || inForce.Same(file) {
		return catalogForGap{catalog: file}, err
	}
	by.catalog = inForce
	unfit, err := findUnfit(ctx, from, inForce)
	if err != nil {
		return by, err
	}
	// Ids of another kind would make all records those of other accounts.
	if unfit.Account || unfit.AccountColumns && !otherAccounts(inForce, file) {
		by.accounts = true
		if by.catalog, err = inForce.With(file, catalog.Parts{Account: true}); err != nil {
			return wholly(inForce, file), nil
		}
		if unfit, err = findUnfit(ctx, from, by.catalog); err != nil {
			return by, err
		}
		if unfit.Account {
			return wholly(inForce, file), nil
		}
	}
	parts := catalog.Parts{Tables: unfit.Tables}
	for _, of := range catalog.RowTables() {
		if inForce.RowTable(of) == (schemas.TableName{}) && !inForce.Names(file.RowTable(of)) {
			parts.Tables = append(parts.Tables, of)
		}
	}
	by.take(inForce, file, unfit)
	parts.Schemas = append(slices.Clone(by.byFile), by.ends...)
	if by.catalog, err = by.catalog.With(file, parts); err != nil {
		return wholly(inForce, file), nil
	}
	return by, nil
}

// take says which schemas come from the file, and which end.
func (by *catalogForGap) take(inForce, file *catalog.Catalog, unfit source.Unfit) {
	for _, name := range unfit.Schemas {
		if file.Schema(name) != nil {
			by.byFile = append(by.byFile, name)
		} else {
			by.ends = append(by.ends, name)
		}
	}
	for _, name := range unfit.Cut {
		if s := file.Schema(name); s != nil && slices.Equal(s.Key, inForce.Schema(name).Key) {
			by.byFile = append(by.byFile, name)
		}
	}
	// One that the file lacks stays, if what it is owned through does.
	for again := true; again; {
		again = false
		for _, name := range unfit.Through {
			parent := inForce.Schema(name).Owner.Schema
			switch {
			case slices.Contains(by.byFile, name) || slices.Contains(by.ends, name):
			case file.Schema(name) != nil:
				by.byFile, again = append(by.byFile, name), true
			case slices.Contains(by.ends, parent):
				by.ends, again = append(by.ends, name), true
			}
		}
	}
	slices.Sort(by.byFile)
	slices.Sort(by.ends)
}

// wholly is the file, for parts of the two that do not go together.
func wholly(inForce, file *catalog.Catalog) catalogForGap {
	by := catalogForGap{catalog: file, whole: true, accounts: true}
	for _, s := range inForce.Schemas {
		if file.Schema(s.Name) != nil {
			by.byFile = append(by.byFile, s.Name)
		} else {
			by.ends = append(by.ends, s.Name)
		}
	}
	return by
}

func findUnfit(ctx context.Context, from source.Config, c *catalog.Catalog) (source.Unfit, error) {
	from.Catalog = c
	return source.FindUnfit(ctx, from)
}

func (by *catalogForGap) log(log *zap.Logger) {
	if by.accounts || len(by.byFile)+len(by.ends) > 0 {
		log.Warn("the source has no more all that the catalog in force says: what changed of that in the gap is compared as the catalog file has it",
			zap.Bool("all", by.whole), zap.Bool("accounts", by.accounts), zap.Strings("schemas", by.byFile), zap.Strings("without", by.ends))
	}
}
