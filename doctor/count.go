package doctor

import (
	"fmt"
	"strconv"
	"strings"
)

// Count writes a number with its noun: "1 change", "2 changes".
func Count(n int, thing string) string { return strconv.Itoa(n) + " " + Choose(n, thing, thing+"s") }

// Are returns the verb for a number of things: "is" or "are".
func Are(n int) string { return Choose(n, "is", "are") }

// Choose returns the form of a word for one thing or for several.
func Choose(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}

// ListMost is how many names a list shows where nothing else bounds it.
const ListMost = 20

// List joins names, at most so many of them, and says how many more there are.
func List(names []string, most int) string {
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
