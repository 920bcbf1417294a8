package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"walhook/doctor"
)

// checkup is what --json prints.
type checkup struct {
	Checks []doctor.Finding `json:"checks"`
	tally
}

// tally counts the results.
type tally struct {
	OK      int `json:"ok"`
	Warning int `json:"warning"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

func count(findings []doctor.Finding) (t tally) {
	for _, f := range findings {
		switch f.Status {
		case doctor.OK:
			t.OK++
		case doctor.Warning:
			t.Warning++
		case doctor.Failed:
			t.Failed++
		case doctor.Skipped:
			t.Skipped++
		}
	}
	return t
}

func writeFindingsJSON(w io.Writer, findings []doctor.Finding) error {
	return writeJSON(w, checkup{Checks: findings, tally: count(findings)})
}

// writeFindings prints a line for each check, and its fix below.
func writeFindings(w io.Writer, findings []doctor.Finding) error {
	var text strings.Builder
	for _, f := range findings {
		mark := string(f.Status)
		if f.Status == doctor.Failed {
			mark = "FAILED"
		}
		fmt.Fprintf(&text, "%-8s %-27s %s\n", mark, f.ID, printable(f.Evidence))
		writeSteps(&text, f.Fix)
	}
	t := count(findings)
	fmt.Fprintf(&text, "%s: %d ok, %s, %d failed, %d skipped\n", doctor.Count(len(findings), "check"), t.OK, doctor.Count(t.Warning, "warning"), t.Failed, t.Skipped)
	if i := slices.IndexFunc(findings, doctor.Finding.Bad); i >= 0 {
		fmt.Fprintf(&text, "'walhook reasons %s' says what that check is about; so for every check and reason\n", findings[i].ID)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// writeSteps groups the steps by place.
func writeSteps(w io.Writer, steps doctor.Steps) {
	printed := ""
	for _, step := range steps {
		if where := place(step); where != printed {
			fmt.Fprintf(w, "         %s\n", printable(where))
			printed = where
		}
		text := printable(step.Text)
		if step.Kind == doctor.SQL {
			text = sqlLine(step.Text) + ";"
		}
		fmt.Fprintf(w, "             %s\n", text)
		if step.Restart {
			fmt.Fprintf(w, "         then restart that server\n")
			printed = ""
		}
		if step.Note != "" {
			fmt.Fprintf(w, "         (%s)\n", printable(step.Note))
		}
	}
}

// place says where a step runs, and who runs it.
func place(step doctor.Step) string {
	switch step.Kind {
	case doctor.SQL:
		if step.Needs != "" {
			return fmt.Sprintf("on the %s's database, with %s:", step.On, step.Needs)
		}
		return fmt.Sprintf("on the %s's database:", step.On)
	case doctor.Setting:
		return "set:"
	case doctor.Address:
		return fmt.Sprintf("in the URL of --%s:", step.On)
	case doctor.Catalog:
		return "in the catalog file:"
	}
	return "run:"
}
