package outbox

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

func TestIsDead_OnlyAProcessThatHasCertainlyEnded(t *testing.T) {
	t.Parallel()
	mine := processIdentity()
	of := strings.Fields(mine)
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	started, _ := processStart(child.Process.Pid)
	identity := fmt.Sprintf("%s %s %d %s", of[0], of[1], child.Process.Pid, started)
	for name, other := range map[string]string{
		"this one":             mine,
		"a living child":       identity,
		"nobody":               "",
		"another boot":         fmt.Sprintf("%s %s %d %s", "b0-0", of[1], 1<<22+1, "1"),
		"another namespace":    fmt.Sprintf("%s %s %d %s", of[0], "pid:[1]", 1<<22+1, "1"),
		"somebody unreadable":  "what ever this is",
		"something unreadable": fmt.Sprintf("%s %s %s %s", of[0], of[1], "x", "1"),
	} {
		if isDead(other, mine) {
			t.Errorf("%s is taken for dead", name)
		}
	}
	if !isDead(fmt.Sprintf("%s %s %d %s", of[0], of[1], child.Process.Pid, "1"), mine) {
		t.Error("one whose number is another's by now is taken for alive")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a zombie is dead", func() bool { return isDead(identity, mine) })
	_ = child.Wait()
	if !isDead(identity, mine) {
		t.Error("one that is gone is taken for alive")
	}
}

func TestSession_OfADeadProcessEndsAtOnce(t *testing.T) {
	w := newWorld(t)
	mine := processIdentity()
	first, _ := w.join(t)
	if _, gained := w.join(t); len(gained.Shards) != 0 {
		t.Errorf("took %d shards of a session of this process", len(gained.Shards))
	}
	of := strings.Fields(mine)
	w.exec(t, "DELETE FROM walhook.sender WHERE id <> $1", first.id)
	w.exec(t, "UPDATE walhook.sender SET process = $1", fmt.Sprintf("%s %s %d %s", of[0], of[1], 1<<22+1, "1"))
	if _, gained := w.join(t); len(gained.Shards) != Shards {
		t.Errorf("took %d shards of a dead process", len(gained.Shards))
	}
}
