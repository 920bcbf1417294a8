package endtoend

import "testing"

// After a gap a feed gets what came in it, of every account: of those without a URL, of one
// that is new, and of a record that has moved.
func TestOperatorFeed_GetsWhatCameInAGap(t *testing.T) {
	t.Parallel()
	w := newOperatorWorld(t)
	receiver := newFeedReceiver(t)
	w.feeds(t, "add", "billing", "--url", receiver.URL)
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '71'), (2, 7, '72'), (3, 9, '93')`)
	receiver.want(t, 0, `7 {"type":"insert","schema":"dids"`, `7 {"type":"insert","schema":"dids"`, `9 {"type":"insert","schema":"dids"`)

	slot := "feeds_" + w.db.Name
	w.process.stop(t)
	w.db.Exec(t, `SELECT pg_drop_replication_slot('`+slot+`')`)
	w.db.Exec(t, `UPDATE dids SET number = '77' WHERE id = 1`)
	w.db.Exec(t, `UPDATE dids SET user_id = 8 WHERE id = 2`)
	w.db.Exec(t, `DELETE FROM dids WHERE id = 3`)
	w.db.Exec(t, `INSERT INTO users (id, username) VALUES (10, 'ten')`)
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (4, 10, '104')`)
	w.db.Exec(t, `ALTER TABLE dids DROP CONSTRAINT dids_user_id_fkey; INSERT INTO dids (id, user_id, number) VALUES (5, 11, '105')`) // no row has that account
	w.db.Exec(t, `INSERT INTO async_results (user_id, schema, type, status) VALUES (9, 'sms_enablement', 'update', 'done')`)
	mustRun(t, "setup", "--accept-gap", "--source", w.db.URL, "--slot", slot)
	w.start(t)
	receiver.want(t, 3, `7 {"type":"update","schema":"dids"`, `7 {"type":"delete","schema":"dids"`, `8 {"type":"insert","schema":"dids"`,
		`9 {"type":"delete","schema":"dids"`, `10 {"type":"insert","schema":"users"`, `10 {"type":"insert","schema":"dids"`, `11 {"type":"insert","schema":"dids"`, `9 {"type":"update","schema":"sms_enablement"`)

	// What comes later comes behind it, once.
	w.db.Exec(t, `UPDATE dids SET number = '78' WHERE id = 1`)
	receiver.want(t, 11, `7 {"type":"update","schema":"dids"`)
}
