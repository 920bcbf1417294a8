package route

import (
	"strconv"
	"testing"
)

func TestCache_EvictsOnlyWhatWasNotAskedForLong(t *testing.T) {
	c := NewOwnerCache()
	asked, unasked := RecordKey{"dids", "asked"}, RecordKey{"dids", "unasked"}
	c.Set(asked, Ownership{Account: "7"})
	c.Set(unasked, Ownership{Account: "7"})
	for generation := range 3 {
		for n := range OwnerGeneration {
			c.Set(RecordKey{"faxes", strconv.Itoa(n)}, Ownership{Account: "8"})
		}
		c.Age()
		if o, known, _ := c.look(asked); !c.keep(asked) || !known || o.Account != "7" {
			t.Errorf("generation %d: what is asked for is evicted", generation)
		}
	}
	if c.keep(unasked) {
		t.Error("nothing is ever evicted")
	}
	if n := len(c.young) + len(c.old); n > 2*OwnerGeneration+2 {
		t.Errorf("%d records are remembered", n)
	}
}
