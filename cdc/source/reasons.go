package source

import (
	"strings"

	"walhook/schemas"
)

// The reasons of gaps.
const (
	gapSystem   = "the source is another database system (%s, was %s)"
	gapNoSlot   = "the slot no longer exists"
	gapLost     = "the server invalidated the slot (wal_status lost): %s"
	gapRewound  = "the source was rewound or restored: its WAL ends at %s"
	gapReplaced = "the WAL is not the one that was read up to %s: the commit of transaction %d is not there"
	gapAdvanced = "somebody else advanced or recreated the slot: it is at %s"
	gapOutbox   = schemas.GapOutboxLacks + ": it was restored, or failed over to a standby that had not received it; the slot is at %s"
	gapHistory  = "the source is on timeline %d, was on %d, and its history cannot be read: %v"
	gapTimeline = "the source is on timeline %d, which does not come from timeline %d"
	gapBranch   = "the source is on timeline %d, which left timeline %d at %s, before what was read"

	// Nobody found a gap.
	gapStartedOver = "an operator started over with 'walhook setup --accept-gap'"

	gapPublication      = "publication %s %s"
	gapNoPublication    = "does not exist"
	gapOtherPublication = "was dropped and recreated"
	gapOperations       = "does not publish every insert, update, delete and truncate"
	gapUnpublished      = "does not contain %s of the catalog"
	gapInterrupted      = "did not contain all of %s of the catalog for a time: it was taken out and put back, had a row filter or column list, or another table took its name"
	gapAltered          = "was altered and altered back: for a time it was renamed, or did not publish every insert, update, delete and truncate"
)

// The reasons of gaps that the stream finds.
const (
	GapUndecodable = "the next change was made while the publication was missing and cannot be decoded (%v)"
	GapOtherWAL    = "the WAL is not the one that was read up to %s: of the transaction stored from there, %s"
)

// acceptGapFix ends every gap.
const acceptGapFix = "then `walhook setup --accept-gap` starts over from a fresh snapshot and sends every endpoint what it missed"

// GapReasons explains every reason of a gap.
func GapReasons() []schemas.Reason {
	published := func(what string) string {
		return strings.Replace(strings.Replace(gapPublication, "%s", "…", 1), "%s", what, 1)
	}
	all := []schemas.Reason{
		{Name: gapSystem, Cause: "`--source` names another server, or somebody initialized the source again", Fix: "correct `--source` if it is wrong; otherwise " + acceptGapFix},
		{Name: gapNoSlot, Cause: "somebody dropped the slot, or a failover went to a server that does not have it", Fix: "find out who; let standbys keep the slot (`walhook doctor`, `source.failover`); " + acceptGapFix},
		{Name: gapStartedOver, Cause: "the WAL could be continued, or nobody had looked", Fix: "nothing; the gap is accepted"},
		{Name: gapLost, Cause: "the slot retained more WAL than the server may keep for it, or was not read for too long", Fix: "raise `max_slot_wal_keep_size`; " + acceptGapFix},
		{Name: gapRewound, Cause: "the source was restored from a backup, or failed over to a standby that lacked the newest commits", Fix: acceptGapFix},
		{Name: gapReplaced, Cause: "the source's files were replaced by an earlier copy of them, without archive recovery, and other transactions were committed since", Fix: acceptGapFix},
		{Name: gapAdvanced, Cause: "another program read the slot, or somebody called `pg_replication_slot_advance`", Fix: "stop that program, or give walhook a slot of its own (`--slot`); " + acceptGapFix},
		{Name: gapOutbox, Cause: "the outbox failed over to an asynchronous standby, or was restored, and lacks the newest commits", Fix: "give the outbox a synchronous standby; " + acceptGapFix},
		{Name: gapHistory, Cause: "the source failed over, and its timeline history file is missing", Fix: "restore the file if you have it; otherwise " + acceptGapFix},
		{Name: gapTimeline, Cause: "the source is a server of another history", Fix: "correct `--source` if it is wrong; otherwise " + acceptGapFix},
		{Name: gapBranch, Cause: "the source failed over to a standby that lacked what walhook had read", Fix: acceptGapFix},
		{Name: GapUndecodable, Cause: "the publication was dropped and created again; the server decodes changes by its catalog of their time", Fix: acceptGapFix},
		{Name: GapOtherWAL, Cause: "the source was restored, and its WAL continues in another way", Fix: acceptGapFix},
		{Name: published(gapNoPublication), Cause: "somebody dropped the publication", Fix: acceptGapFix},
		{Name: published(gapOtherPublication), Cause: "changes in between were not published", Fix: acceptGapFix},
		{Name: published(gapOperations), Cause: "somebody changed the publication's `publish`", Fix: acceptGapFix},
		{Name: published(gapUnpublished), Cause: "somebody took the table out of the publication, or added one to the catalog by hand", Fix: acceptGapFix},
		{Name: published(gapInterrupted), Cause: "somebody altered the publication, and altered it back; changes in between were not published", Fix: acceptGapFix},
		{Name: published(gapAltered), Cause: "somebody altered the publication's `publish` or name and altered it back, or set an option to the value that it had; walhook cannot tell which", Fix: acceptGapFix},
	}
	for i := range all {
		all[i].Name = strings.NewReplacer("%s", "…", "%d", "…", "%v", "…").Replace(all[i].Name)
	}
	return all
}
