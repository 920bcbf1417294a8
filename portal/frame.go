package portal

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxFrameAncestors bounds the header.
const maxFrameAncestors = 20

// ParseFrameAncestors reads the origins whose pages may show the portal in a frame. Every
// origin is named: a wildcard would let anybody who gets one of its hosts lay something over
// the portal.
func ParseFrameAncestors(list []string) ([]string, error) {
	var origins []string
	for _, one := range list {
		if strings.Contains(one, "*") {
			return nil, fmt.Errorf("%q: a wildcard is refused, since any host that it covers could show the portal and lay something over it: name each origin, such as https://my.example.com", one)
		}
		u, err := url.Parse(one)
		if err != nil || u.Scheme != "https" || !isHostname(u.Hostname()) || u.User != nil || u.Opaque != "" || strings.Trim(u.Path, "/") != "" ||
			u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(one, "#") {
			return nil, fmt.Errorf("%q: want https:// with a host, and nothing behind it but a port, such as https://my.example.com", one)
		}
		origin := "https://" + strings.ToLower(u.Hostname())
		if port := u.Port(); port != "" {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return nil, fmt.Errorf("%q: want a port from 1 to 65535", one)
			}
			origin += ":" + port
		}
		if !slices.Contains(origins, origin) {
			origins = append(origins, origin)
		}
	}
	if len(origins) > maxFrameAncestors {
		return nil, errors.New("want at most 20 origins")
	}
	return origins, nil
}

// policy is the Content-Security-Policy of every page.
func policy(frameAncestors []string) string {
	ancestors := "'none'"
	if len(frameAncestors) > 0 {
		ancestors = strings.Join(frameAncestors, " ")
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors " + ancestors
}

// setFraming says to browsers which know no frame-ancestors that no page may show this one.
// X-Frame-Options cannot name other origins, and browsers that know both obey
// frame-ancestors (CSP Level 3, 6.4.2.2): with origins it is left out.
func setFraming(h http.Header, frameAncestors []string) {
	if len(frameAncestors) == 0 {
		h.Set("X-Frame-Options", "DENY")
	}
}
