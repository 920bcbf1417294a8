package cdc

import (
	"testing"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// An observer may have described the table by the time its backlog is read.
func TestHistory_AKeyThatWasDroppedIsKnownForWhatCommittedBefore(t *testing.T) {
	t.Parallel()
	columns := func(key bool) []catalog.DescribedColumn {
		return []catalog.DescribedColumn{{Name: "id", Primary: key}}
	}
	keyed := &catalog.TableDescription{OID: 1, From: 10, Columns: columns(true)}
	without := &catalog.TableDescription{OID: 1, From: 50, Columns: columns(false)}
	today := &catalog.TableDescription{OID: 1, Columns: columns(false)}
	relation := &schemas.Relation{OID: 1, Columns: []schemas.Column{{Name: "id"}}}
	for _, test := range []struct {
		name     string
		versions []*catalog.TableDescription
		commit   schemas.LSN
		want     *catalog.TableDescription
	}{
		{"nobody has looked since", []*catalog.TableDescription{keyed}, 20, keyed},
		{"somebody has looked since", []*catalog.TableDescription{keyed, without}, 20, keyed},
		{"it was seen without before the transaction", []*catalog.TableDescription{keyed, without}, 60, today},
	} {
		h := &history{byOID: map[uint32][]*catalog.TableDescription{1: test.versions}}
		if got := h.choose(relation, begin{commit: test.commit}, today); got != test.want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}
