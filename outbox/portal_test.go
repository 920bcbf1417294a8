package outbox

import (
	"testing"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// A link, and the session of one, that the token of an account above made end when that account
// is not above any more, and do not work again when it is: a session ends once.
func TestPortal_WhatATokenFromAboveMadeEndsWithItsPlace(t *testing.T) {
	sessions := func(f *feed) []string {
		return all[string](t, f.world, `SELECT 'link ' || account || ' by ' || token_account FROM walhook.portal_link
			UNION ALL SELECT 'session ' || account || ' by ' || token_account FROM walhook.portal_session ORDER BY 1`)
	}
	const fill = `
		WITH links AS (
			INSERT INTO walhook.portal_link (hash, account, token, token_account, expires_at)
			SELECT convert_to(a || b, 'UTF8'), a, CASE WHEN b <> '' THEN 't' ELSE '' END, b, now() + interval '1 hour' FROM (VALUES ('3', '1'), ('3', '2'), ('3', '3'), ('2', '1'), ('3', '')) v(a, b))
		INSERT INTO walhook.portal_session (hash, id, account, operator, token, token_account, expires_at)
		SELECT convert_to(a || b, 'UTF8'), a || b, a, false, CASE WHEN b <> '' THEN 't' ELSE '' END, b, now() + interval '1 hour' FROM (VALUES ('3', '1'), ('3', '2'), ('3', '3'), ('2', '1'), ('3', '')) v(a, b)`
	all := []string{"link 2 by 1", "link 3 by ", "link 3 by 1", "link 3 by 2", "link 3 by 3", "session 2 by 1", "session 3 by ", "session 3 by 1", "session 3 by 2", "session 3 by 3"}
	left := []string{"link 2 by 1", "link 3 by ", "link 3 by 1", "link 3 by 3", "session 2 by 1", "session 3 by ", "session 3 by 1", "session 3 by 3"}
	t.Run("moved and moved back", func(t *testing.T) {
		f := newFeed(t)
		f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2))
		f.exec(t, fill)
		f.commit(t, memberInsert(4, 3)) // moves nobody
		wantLines(t, sessions(f), all...)
		f.commit(t, members.Update(member(3, 2), member(3, 1)))
		wantLines(t, sessions(f), left...)
		f.commit(t, members.Update(member(3, 1), member(3, 2)))
		wantLines(t, sessions(f), left...)
		f.commit(t, members.Update(member(2, 1), member(2, nil))) // 1 is above nobody
		wantLines(t, sessions(f), "link 3 by ", "link 3 by 3", "session 3 by ", "session 3 by 3")
	})
	t.Run("in between is deleted", func(t *testing.T) {
		f := newFeed(t)
		f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2))
		f.exec(t, fill)
		f.commit(t, schemas.Change{Kind: schemas.Delete, Relation: members.Relation, Old: member(2, 1)})
		got := sessions(f)
		for _, line := range got {
			if line == "session 3 by 1" || line == "link 3 by 1" {
				t.Errorf("left are %q", got)
			}
		}
	})
	t.Run("in a gap", func(t *testing.T) {
		f := newFeed(t)
		f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2))
		f.exec(t, fill)
		f.snapshot(t, 0x9000, func(w catalog.SnapshotSink) error {
			for _, a := range []schemas.Account{{ID: "1"}, {ID: "2", Parent: "1"}, {ID: "3", Parent: "1"}} {
				if err := w.Account(t.Context(), a); err != nil {
					return err
				}
			}
			return nil
		})
		wantLines(t, sessions(f), left...)
	})
}
