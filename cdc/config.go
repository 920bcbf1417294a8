package cdc

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Config says which log to read.
type Config struct {
	// URL of the carrier's database; several hosts are allowed, the primary
	// is used. Required.
	URL string
	// URLNow reads the URL again for each connection, of a file where a password
	// may be rotated; nil for URL.
	URLNow func() (string, error)
	// Slot and Publication name what setup made. Empty means "walhook".
	Slot        string
	Publication string
	// Catalog says which tables are published. Required.
	Catalog *catalog.Catalog
	// Messages are the prefixes of the logical messages that are taken. Nil
	// takes the default ones; an empty list asks the server for none.
	Messages schemas.Messages
	// MaxMessageBytes bounds the memory that one message of the stream takes:
	// of a change whose old and new row are longer than that together, only
	// small values are kept, and it is listed as unrouted. Zero means 64 MiB.
	MaxMessageBytes int
	// SkipUnreadable is the commit of a transaction that the source cannot send
	// and that is given up; 0 for none.
	SkipUnreadable schemas.LSN
}

const defaultMaxMessageBytes = 64 << 20

func (c Config) maxMessageBytes() int { return cmp.Or(c.MaxMessageBytes, defaultMaxMessageBytes) }

const defaultName = "walhook"

// slotName is what PostgreSQL allows as the name of a slot (manual,
// Replication Slots).
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// slotIdent is the slot's name for a replication command, whose grammar would
// take a name such as "logical" or "1st" for something else.
func (c Config) slotIdent() string { return `"` + c.Slot + `"` }

func (c Config) withDefaults() Config {
	if c.Slot == "" {
		c.Slot = defaultName
	}
	if c.Publication == "" {
		c.Publication = defaultName
	}
	return c
}

// Validate lists everything that is wrong with c.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	if c.URL == "" {
		faults = append(faults, errors.New("source is missing: the carrier database's URL, such as postgres://user@host/database"))
	}
	if err := c.Messages.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("messages: %w", err))
	}
	if !slotName.MatchString(c.Slot) {
		faults = append(faults, fmt.Errorf("slot %q: want 1 to 63 of a-z, 0-9 and _", c.Slot))
	}
	if len(c.Publication) > 63 {
		faults = append(faults, fmt.Errorf("publication %q: want at most 63 bytes", c.Publication))
	}
	if c.Catalog == nil {
		faults = append(faults, errors.New("catalog is missing"))
	}
	return errors.Join(faults...)
}
