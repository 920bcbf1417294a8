package schemas

import "strings"

// Nearest is the known name that a person may have meant: one with the same letters
// but for case and punctuation, then the one with the fewest typing mistakes, then
// one that continues the name. "" where none is near; of equals the one that is
// written alike, then the first.
func Nearest(name string, known []string) string {
	if name == "" {
		return ""
	}
	best, fewest := "", 1+max(1, len([]rune(name))/3)
	for _, other := range known {
		if other == name || other == "" {
			continue
		}
		d := 0
		if bare(name) != bare(other) || bare(name) == "" {
			d = distance(strings.ToLower(name), strings.ToLower(other))
		}
		if d < fewest || d == fewest && best != "" && distance(name, other) < distance(name, best) {
			best, fewest = other, d
		}
	}
	if best != "" || len(name) < 3 {
		return best
	}
	for _, other := range known {
		if other != name && len(other) > 3 && (strings.HasSuffix(other, "_"+name) || strings.HasPrefix(other, name+"_") ||
			strings.HasSuffix(name, "_"+other) || strings.HasPrefix(name, other+"_")) {
			return other
		}
	}
	return ""
}

// NearestTable is the known table that a person may have meant: one of that name in another
// schema of the database, or of nearly that name. The zero one where none is near.
func NearestTable(name TableName, known []TableName) TableName {
	var here, all []string
	for _, other := range known {
		if other == name {
			continue
		}
		if strings.EqualFold(other.Name, name.Name) {
			return other
		}
		all = append(all, other.String())
		if other.Namespace == name.Namespace {
			here = append(here, other.Name)
		}
	}
	if near := Nearest(name.Name, here); near != "" {
		return TableName{Namespace: name.Namespace, Name: near}
	}
	near := Nearest(name.String(), all)
	for _, other := range known {
		if near != "" && other.String() == near {
			return other
		}
	}
	return TableName{}
}

func bare(name string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		if strings.ContainsRune(`_-." `, r) {
			return -1
		}
		return r
	}, name))
}

// distance counts the typing mistakes between two names: letters left out, added,
// replaced, or two neighbours exchanged (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 200 || len(y) > 200 {
		return max(len(x), len(y))
	}
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}
