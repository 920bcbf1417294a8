package source

import (
	"testing"

	"walhook/schemas/catalog"
)

// A table under another name is found by its columns: of a table without any,
// every other would be one.
func TestExamine_KnowsColumnsOfEveryTableOfTheCatalog(t *testing.T) {
	for _, catalog := range []*catalog.Catalog{catalog.Carrier(), catalog.Platform()} {
		e := &examination{cfg: Config{Catalog: catalog}}
		for _, table := range catalog.Tables() {
			if columns := columnsOf(e.cfg.Catalog, table); len(columns) < 3 {
				t.Errorf("%s has columns %q", table, columns)
			}
		}
	}
}
