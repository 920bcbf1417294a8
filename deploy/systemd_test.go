package deploy

import (
	"strings"
	"testing"
)

func TestUnit_NamesTheBinary(t *testing.T) {
	t.Parallel()
	if !strings.Contains(Unit("/usr/bin/walhook"), "\nExecStart=/usr/bin/walhook run\n") || strings.Contains(Unit("/usr/bin/walhook"), unitProgram) {
		t.Errorf("the unit does not start /usr/bin/walhook:\n%s", Unit("/usr/bin/walhook"))
	}
}
