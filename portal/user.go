package portal

import (
	"net/url"
	"regexp"
	"strings"

	"walhook/outbox/admin"
)

// hideUser takes user name and password out of the form's URL, which is shown again, and
// says so at the field. The API keeps those that are stored for a URL with … .
func (f *formPage) hideUser(words *pages) {
	text, hidden := withoutUser(f.Values.Get("uri"))
	if !hidden {
		return
	}
	f.Values.Set("uri", text)
	if f.Faults == nil {
		f.Faults = map[string][]string{}
	}
	say := "form.user_again"
	if f.New {
		say = "form.user_new"
	}
	f.Faults["uri"] = append(f.Faults["uri"], words.text(say))
}

// beforeAuthority is what stands before the authority of a URL (RFC 3986, 3).
var beforeAuthority = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*:)?//`)

// withoutUser masks user name and password of a URL, as they are shown everywhere. Of a text
// that is no URL it masks all in which they can be.
func withoutUser(text string) (shown string, hidden bool) {
	begin := len(beforeAuthority.FindString(text))
	rest := text[begin:]
	u, err := url.Parse(text)
	end := strings.LastIndex(rest, "@")
	switch {
	case end < 0:
		return text, false
	case err == nil && u.Host != "" && u.User == nil: // an @ of the path or the query
		return text, false
	case err == nil && u.Host != "":
		authority := len(rest)
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			authority = i
		}
		end = strings.LastIndex(rest[:authority], "@")
	}
	if rest[:end] == admin.Masked {
		return text, false
	}
	return text[:begin] + admin.Masked + rest[end:], true
}
