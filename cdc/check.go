package cdc

import (
	"context"
	"fmt"
	"strings"

	"walhook/doctor"
	"walhook/schemas"
)

// check compares what is stored with what the source has, before anything is
// read. Whatever does not fit is a fault to mend or a gap.
func (c Config) check(stored schemas.Checkpoint, now system, slot slotState) error {
	if _, err := c.judge(stored, now, slot); err != nil {
		return err
	}
	_, err := c.judgePublication(stored.Flush, stored.Source.PublicationOID, slot)
	return err
}

// judge finds the first of what does not fit, and which of doctor's checks it
// belongs to. What comes later says nothing once something earlier is wrong.
func (c Config) judge(stored schemas.Checkpoint, now system, slot slotState) (check string, err error) {
	if stored.Source == (schemas.Source{}) {
		if slot.exists {
			return checkSlot, c.slotWithoutPosition()
		}
		return checkSetup, &Fault{Problem: "the source is not prepared", Mend: "run 'walhook setup', or start with --setup",
			Err: errNotSetUp, steps: doctor.Run("walhook setup")}
	}
	gap := func(to schemas.LSN, format string, args ...any) error {
		return &GapError{From: stored.Flush, To: to, Slot: c.Slot, Reason: fmt.Sprintf(format, args...)}
	}
	// Inside a transaction its commit is beyond what may be flushed.
	reach := max(stored.Flush, stored.Position.Commit)
	switch was := stored.Source; {
	case was.Slot != c.Slot:
		return checkSetup, c.otherSlot(was.Slot)
	case was.Publication != c.Publication:
		return checkSetup, &Fault{Problem: fmt.Sprintf("the outbox follows publication %s, not %s", was.Publication, c.Publication),
			Mend:  "correct --publication, or run 'walhook setup --accept-gap' to start over with the other",
			steps: doctor.Steps{{Kind: doctor.Setting, Text: "--publication=" + was.Publication}}}
	case was.SystemID != now.id:
		return checkSystem, gap(slot.walEnd, "the source is another database system (%s, was %s)", now.id, was.SystemID)
	// A slot belongs to one database, by its OID: with the slot there, it is the
	// same one under another name.
	case was.Database != now.database && !slot.exists:
		return checkSetup, &Fault{Problem: fmt.Sprintf("the outbox follows database %s, not %s", was.Database, now.database),
			Mend:  "correct --source, or use an outbox of its own",
			steps: doctor.Steps{{Kind: doctor.Address, On: source, Text: "dbname=" + was.Database}}}
	case !slot.exists:
		return checkSlot, gap(slot.walEnd, "the slot does not exist any more")
	case slot.lost:
		return checkSlot, gap(slot.walEnd, "the server gave up the slot (wal_status lost): %s", slot.whyLost())
	case slot.walEnd < reach:
		return checkSystem, gap(slot.walEnd, "the source was rewound or restored: its WAL ends at %s", slot.walEnd)
	case now.strays(was.Timeline, reach) != "":
		return checkSystem, gap(slot.walEnd, "%s", now.strays(was.Timeline, reach))
	case slot.confirmed > stored.Flush:
		return checkPosition, gap(slot.confirmed, "the slot was advanced or made anew by someone else: it stands at %s", slot.confirmed)
	case was.Catalog != c.Catalog.Fingerprint():
		return checkCatalog, &Fault{Problem: "the catalog's accounts, tables, keys or owners differ from those that were set up",
			Mend:  "run 'walhook setup --accept-gap' to read the owners anew, or go back to the catalog that was set up",
			steps: acceptGap("or go back to the catalog that was set up, which costs nothing")}
	}
	return "", nil
}

// judgePublication finds what is silently missing from the stream, and which of
// doctor's checks it belongs to: the log has been read up to from, and what was
// not published since is a gap. before is the OID of the publication that was
// read.
func (c Config) judgePublication(from schemas.LSN, before uint32, slot slotState) (check string, err error) {
	gap := func(format string, args ...any) error {
		return &GapError{From: from, To: slot.walEnd, Slot: c.Slot,
			Reason: fmt.Sprintf("publication %s ", c.Publication) + fmt.Sprintf(format, args...)}
	}
	switch {
	case slot.publication == 0:
		return checkPublication, gap("does not exist")
	case slot.publication != before:
		return checkPublication, gap("was dropped and made anew")
	case !slot.operations:
		return checkPublished, gap("does not publish every insert, update, delete and truncate")
	case len(slot.unpublished) > 0:
		names := make([]string, len(slot.unpublished))
		for i, table := range slot.unpublished {
			names[i] = table.String()
		}
		return checkPublished, gap("does not hold %s of the catalog", strings.Join(names, ", "))
	}
	return "", nil
}

// CheckPublication finds, before [Plan.Apply] would mend it, a publication from
// which something is missing that the stored position went past: a [*GapError].
// A source of which nothing is stored has no gap.
func CheckPublication(ctx context.Context, cfg Config, stored schemas.Checkpoint) error {
	if stored.Source == (schemas.Source{}) {
		return nil
	}
	cfg = cfg.withDefaults()
	source, err := newCatalogReader(ctx, cfg)
	if err != nil {
		return err
	}
	defer source.close(ctx)
	slot, err := source.inspect(ctx, cfg)
	if err != nil {
		return err
	}
	_, err = cfg.judgePublication(stored.Flush, stored.Source.PublicationOID, slot)
	return err
}

func (c Config) otherSlot(followed string) error {
	return &Fault{Problem: fmt.Sprintf("the outbox follows slot %s, not %s", followed, c.Slot),
		Mend: "correct --slot, or use an outbox of its own", steps: doctor.Steps{{Kind: doctor.Setting, Text: "--slot=" + followed}}}
}

func (c Config) slotWithoutPosition() error {
	return &Fault{
		Problem: fmt.Sprintf("slot %s exists without a stored position: the snapshot that belongs to it is gone", c.Slot),
		Mend: fmt.Sprintf("if nobody else uses it, drop it with \"SELECT pg_catalog.pg_drop_replication_slot('%s')\" and run 'walhook setup'; "+
			"otherwise choose another name with --slot", c.Slot),
		steps: doctor.Steps{
			{Kind: doctor.SQL, On: source, Text: "SELECT pg_catalog.pg_drop_replication_slot(" + doctor.QuoteLiteral(c.Slot) + ")",
				Note: "if nobody else uses it; otherwise choose another name with --slot"},
			{Kind: doctor.Command, Text: "walhook setup"},
		},
	}
}

func (e *GapError) gap() schemas.Gap { return schemas.Gap{From: e.From, To: e.To, Reason: e.Reason} }
