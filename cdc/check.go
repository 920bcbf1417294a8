package cdc

import (
	"fmt"

	"github.com/jackc/pglogrepl"

	"walhook/schemas"
)

// check compares what is stored with what the source has, before anything is
// read. Whatever does not fit is a fault to mend or a gap.
func (c Config) check(stored schemas.Checkpoint, system pglogrepl.IdentifySystemResult, slot slotState) error {
	if stored.Source == (schemas.Source{}) {
		if slot.exists {
			return c.slotWithoutPosition()
		}
		return &Fault{Problem: "the source is not prepared", Mend: "run 'walhook setup', or start with --setup", Err: errNotSetUp}
	}
	gap := func(to schemas.LSN, format string, args ...any) error {
		return &GapError{From: stored.Flush, To: to, Slot: c.Slot, Reason: fmt.Sprintf(format, args...)}
	}
	switch was := stored.Source; {
	case was.Slot != c.Slot:
		return &Fault{Problem: fmt.Sprintf("the outbox follows slot %s, not %s", was.Slot, c.Slot),
			Mend: "correct --slot, or use an outbox of its own"}
	case was.SystemID != system.SystemID:
		return gap(slot.walEnd, "the source is another database system (%s, was %s)", system.SystemID, was.SystemID)
	case !slot.exists:
		return gap(slot.walEnd, "the slot does not exist any more")
	case slot.lost:
		return gap(slot.walEnd, "the server gave up the slot (wal_status lost): max_slot_wal_keep_size was exceeded")
	case slot.walEnd < stored.Flush:
		return gap(slot.walEnd, "the source was rewound or restored: its WAL ends at %s", slot.walEnd)
	case slot.confirmed > stored.Flush:
		return gap(slot.confirmed, "the slot was advanced or made anew by someone else: it stands at %s", slot.confirmed)
	case !slot.published:
		return &Fault{Problem: fmt.Sprintf("publication %s does not exist", c.Publication),
			Mend: "run 'walhook setup' to make it again; changes made while it was missing cannot be decoded"}
	case was.Catalog != c.Catalog.Fingerprint():
		return &Fault{Problem: "the catalog's accounts, tables, keys or owners differ from those that were set up",
			Mend: "run 'walhook setup --accept-gap' to read the owners anew, or go back to the catalog that was set up"}
	}
	return nil
}

func (c Config) slotWithoutPosition() error {
	return &Fault{
		Problem: fmt.Sprintf("slot %s exists without a stored position: the snapshot that belongs to it is gone", c.Slot),
		Mend: fmt.Sprintf("if nobody else uses it, drop it with \"SELECT pg_drop_replication_slot('%s')\" and run 'walhook setup'; "+
			"otherwise choose another name with --slot", c.Slot),
	}
}

func (e *GapError) gap() schemas.Gap { return schemas.Gap{From: e.From, To: e.To, Reason: e.Reason} }
