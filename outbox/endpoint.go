package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/outbox/address"
	"walhook/outbox/seal"
)

const (
	// NextRevisionSQL raises a revision. The largest stays as it is: one such row would fail a statement for many.
	NextRevisionSQL = "revision + (revision < 9223372036854775807)::int"

	endpointColumns = `id, account, revision, coalesce(url, ''), state, reason, secret,
		` + seal.EarlierSecretsSQL + `, feed_from, expire_before, ordering, retry_asked,
		http_verb, format, custom_data::text, retries, rate_limit, batch, webhook, delivery = 'pull', header_names, header_values, subject_prefix, deleted_at IS NOT NULL, ` + seal.StrictSQL + `, ` + seal.StrictURLSQL

	endpointsSQL = `SELECT ` + endpointColumns + ` FROM walhook.endpoint e WHERE id = ANY ($1)`

	endpointsChangedSQL = `
		SELECT id, coalesce(revision, 0), coalesce(ended_secret_at IS NOT NULL AND confirmed_revision < revision, false), retry_asked, ` + hostOfRowSQL + ` FROM walhook.endpoint
		WHERE changed_at > $1::timestamptz - $2::interval AND id % $4 = ANY (SELECT s.id FROM walhook.shard s WHERE s.sender = $3)`

	// What there is to look at of an endpoint's host: its URL, as it is stored. That of a
	// feed is the operator's.
	hostOfRowSQL = `CASE WHEN state = 'active' AND deleted_at IS NULL AND account <> '' THEN coalesce(url, '') ELSE '' END`

	hostsSQL = `
		SELECT id, ` + hostOfRowSQL + ` FROM walhook.endpoint
		WHERE state = 'active' AND deleted_at IS NULL AND id % $2 = ANY (SELECT s.id FROM walhook.shard s WHERE s.sender = $1)
			AND id > $3 ORDER BY id LIMIT $4`
)

// CheckHosts has the session hold each endpoint to whose host check says that
// nothing may be sent: its text is for the account's people. It is called before
// anything else. To change what check allows, start a new session.
func (s *Session) CheckHosts(check func(url string) error) { s.store.checkHost = check }

// hostFault says why nothing can be sent to a URL, or "".
func (s *Store) hostFault(url string) string {
	if url == "" {
		return ""
	}
	if fault := address.URLFault(url); fault != "" || s.checkHost == nil {
		return fault
	}
	if err := s.checkHost(url); err != nil {
		return err.Error()
	}
	return ""
}

// lookAtHosts holds the endpoints of shards that this session has got, where
// nothing may be sent to them. The others are reported as they change.
func (s *Session) lookAtHosts(ctx context.Context) error {
	if !s.gained.Swap(false) {
		return nil
	}
	var look []int64
	var id int64
	var url string
	var err error
	for n := scanRows; err == nil && n == scanRows; { // a part at a time, so that no statement runs for long
		n = 0
		var rows pgx.Rows
		if rows, err = s.store.pool.Query(ctx, hostsSQL, s.id, Shards, id, scanRows); err != nil {
			break
		}
		_, err = pgx.ForEachRow(rows, []any{&id, &url}, func() error {
			n++
			if s.store.hostFault(url) != "" {
				look = append(look, id)
			}
			return nil
		})
	}
	if err == nil && len(look) > 0 {
		_, err = s.store.endpoints(ctx, look)
	}
	if err != nil {
		s.gained.Store(true)
		return fmt.Errorf("check the hosts of endpoints: %w", err)
	}
	return nil
}

// Endpoints reads the named endpoints as they stand now. One that cannot be read
// is held, and EndpointsChanged names it until it can.
func (s *Session) Endpoints(ctx context.Context, ids []int64) ([]Endpoint, error) {
	return s.store.endpoints(ctx, ids)
}

// lookAgain is how often endpoints that are held are looked at again.
const lookAgain = 5 * time.Second

const heldEndpointsSQL = `
	SELECT a.endpoint FROM walhook.set_aside a
	WHERE a.loop = 'endpoints' AND a.endpoint % $2 = ANY (SELECT s.id FROM walhook.shard s WHERE s.sender = $1)`

// held are the endpoints that could not be read, by whichever sender, as they
// stand now, where it is time to look again.
func (s *Session) held(ctx context.Context, now time.Time) (again []EndpointRevision, err error) {
	if now.Sub(s.lookedAgain) < lookAgain {
		return nil, nil
	}
	ids, err := collect[int64](s.store.pool.Query(ctx, heldEndpointsSQL, s.id, Shards))
	if err == nil && len(ids) > 0 {
		err = s.store.loadAside(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("read which endpoints are held: %w", err)
	}
	s.lookedAgain = now
	if len(ids) == 0 {
		return nil, nil
	}
	endpoints, err := s.store.endpoints(ctx, ids)
	for _, e := range endpoints {
		again = append(again, EndpointRevision{ID: e.ID, Revision: min(e.Revision, math.MaxInt64-1)})
	}
	return again, err
}

// The time between a change's time stamp and its commit, which is when it can be
// seen: next to nothing, and for no transaction of ours longer than
// longestChange. So each look goes a little back, and every lookBackEvery one
// goes far enough to see any.
const (
	usualChange   = 2 * time.Second
	longestChange = 2 * statementTimeout
	lookBackEvery = statementTimeout
)

// EndpointsChanged says which endpoints of the held shards changed after the
// instant since (by the outbox's clock), and the instant to ask with next: the
// same after an error. [ErrMoved] on another timeline. An endpoint may be reported again; its revision shows it. One goroutine asks.
func (s *Session) EndpointsChanged(ctx context.Context, since time.Time) ([]EndpointRevision, time.Time, error) {
	if err := s.lookAtHosts(ctx); err != nil {
		return nil, since, err
	}
	back, asked := usualChange, time.Now()
	if asked.Sub(s.lookedBack) >= lookBackEvery {
		back = longestChange + lookBackEvery
	}
	var now time.Time
	var changed []EndpointRevision
	var look []int64 // endpoints that are to be held, or are
	var url string
	both := &pgx.Batch{} // one transaction: the second sees at least what was committed by then
	var same bool
	both.Queue("SELECT clock_timestamp(), walhook.on_timeline($1)", s.timeline).QueryRow(func(row pgx.Row) error { return row.Scan(&now, &same) })
	both.Queue(endpointsChangedSQL, since, back, s.id, Shards).Query(func(rows pgx.Rows) error {
		var e EndpointRevision
		_, err := pgx.ForEachRow(rows, []any{&e.ID, &e.Revision, &e.Confirm, &e.RetryAsked, &url}, func() error {
			changed = append(changed, e)
			if s.store.hostFault(url) != "" || s.store.aside.reason(loopEndpoints, strconv.FormatInt(e.ID, 10)) != "" {
				look = append(look, e.ID)
			}
			return nil
		})
		return err
	})
	if err := s.store.pool.SendBatch(ctx, both).Close(); err != nil {
		return nil, since, fmt.Errorf("read which endpoints changed: %w", err)
	}
	if !same {
		return nil, since, fmt.Errorf("read which endpoints changed: %w", ErrMoved)
	}
	if back > usualChange {
		s.lookedBack = asked
	}
	if len(look) > 0 {
		if _, err := s.store.endpoints(ctx, look); err != nil {
			return nil, since, err
		}
	}
	held, err := s.held(ctx, asked)
	if err != nil {
		return nil, since, err
	}
	return append(changed, held...), now, nil
}

// endpoints reads endpoints by id. One bad row holds its own endpoint alone.
func (s *Store) endpoints(ctx context.Context, ids []int64) (list []Endpoint, err error) {
	err = isolate(ids, isReadFault, func(ids []int64) error {
		rows, err := s.pool.Query(ctx, endpointsSQL, ids)
		if err != nil {
			return err
		}
		read, err := pgx.CollectRows(rows, s.scanEndpoint)
		list = append(list, read...)
		return err
	}, func(id int64, cause error) error {
		e, err := s.unreadableEndpoint(ctx, id)
		if err == nil {
			e.hold(&badItem{asideUnreadable, withoutValues(cause)})
			list = append(list, e)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	for i := range list {
		e, item := &list[i], strconv.FormatInt(list[i].ID, 10)
		switch {
		case e.fault != nil:
			s.setAside(ctx, loopEndpoints, item, e.ID, e.fault.reason, e.fault)
		case s.checkHost == nil && s.aside.reason(loopEndpoints, item) == asideHost:
			// Only a sender knows whether its host is allowed by now.
		default:
			s.wellAgain(ctx, loopEndpoints, item)
		}
	}
	return list, nil
}

// What is needed of an endpoint to hold it.
const heldEndpointSQL = `SELECT revision, feed_from, expire_before FROM walhook.endpoint WHERE id = $1`

// unreadableEndpoint reads what it can of an endpoint.
func (s *Store) unreadableEndpoint(ctx context.Context, id int64) (Endpoint, error) {
	e := Endpoint{ID: id, State: EndpointActive}
	err := s.pool.QueryRow(ctx, heldEndpointSQL, id).Scan(&e.Revision, &e.FeedFrom, &e.ExpireBefore)
	if err != nil && (isReadFault(err) || isNoRows(err)) {
		e.Revision, err = math.MaxInt64, nil // no revision that is told is newer
	}
	return e, err
}

// hold makes an endpoint one that nothing is sent to, because of what is stored
// of it. One that is not active stays what it is.
func (e *Endpoint) hold(fault *badItem) {
	e.fault, e.Unreadable = fault, true
	if e.State == EndpointActive {
		e.State, e.Reason = EndpointUnusable, fault.what
	}
}

func (s *Store) scanEndpoint(row pgx.CollectableRow) (e Endpoint, err error) {
	var secret, webhook string
	var deleted, strict, strictURL bool
	var custom *string
	var earlier, names, values []string
	var set EndpointSettings
	err = row.Scan(&e.ID, &e.Account, &e.Revision, &e.URL, &e.State, &e.Reason, &secret, &earlier, &e.FeedFrom, &e.ExpireBefore, &e.Ordering, &e.RetryAsked,
		&set.HTTPVerb, &set.Format, &custom, &set.Retries, &set.RateLimit, &set.Batch, &webhook, &e.Pull, &names, &values, &e.SubjectPrefix, &deleted, &strict, &strictURL)
	if err != nil {
		return e, err
	}
	if custom != nil {
		set.CustomData = []byte(*custom)
	}
	set.Batch = min(max(set.Batch, 0), MaxBatch) // of a damaged row too
	if e.Settings, err = set.orNone(); err != nil {
		e.hold(&badItem{asideUnreadable, "its custom data is invalid: edit the webhook"})
		return e, nil
	}
	e.Feed = e.Account == NoAccount && webhook != AccountWebhook
	of := seal.Holder{Account: e.Account, Webhook: webhook}
	if e.URL, err = s.secrets.OpenURL(e.URL, of, strictURL); err != nil {
		e.hold(&badItem{asideSecret, reasonSecret})
		return e, nil
	}
	if fault := s.openHeaders(&e, of, names, values, strict); fault != nil {
		e.hold(fault)
		return e, nil
	}
	if e.State == EndpointActive && !deleted && !e.Feed {
		if fault := s.hostFault(e.URL); fault != "" {
			e.hold(&badItem{asideHost, fault})
			return e, nil
		}
	}
	e.Secrets, err = s.secrets.OpenAll(of, strict, secret, earlier)
	switch {
	case err != nil && len(e.Secrets) == 0:
		e.hold(&badItem{asideSecret, reasonSecret})
	case err != nil: // the present one signs: that is no reason to hold it
		s.log.Warn("an endpoint's previous secret is unusable", zap.Int64("endpoint", e.ID), zap.Error(err))
	}
	if len(e.Secrets) > 0 {
		if _, err := seal.SecretKey(e.Secrets[0]); err != nil {
			e.hold(&badItem{asideForm, reasonForm})
		}
		// A previous one that was never fit signs nothing, and holds up nothing.
		e.Secrets = slices.DeleteFunc(e.Secrets, func(secret string) bool { _, err := seal.SecretKey(secret); return err != nil })
	}
	return e, nil
}

// openHeaders decrypts the headers of an endpoint whose URL is known, all of them or none.
func (s *Store) openHeaders(e *Endpoint, of seal.Holder, names, values []string, strict bool) *badItem {
	var headers []Header
	for i, name := range names {
		value, err := s.secrets.Open(values[i], of.Header(e.URL, name), strict)
		if err != nil {
			return &badItem{asideSecret, reasonSecret}
		}
		headers = append(headers, Header{name, value})
	}
	if fault := headersFault(headers); fault != "" {
		return &badItem{asideUnreadable, "its headers are invalid: set them again"}
	}
	slices.SortFunc(headers, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	e.Headers = headers
	return nil
}

// reasonForm is what people read of an endpoint whose own secret cannot sign.
const reasonForm = "the secret in the account table's column is not whsec_ and the base64 of a key: correct it there, or clear the column for a secret that walhook generates; delivery resumes by itself"

// reasonSecret is what people read of an endpoint whose secret, URL or headers are of no use.
const reasonSecret = "its signing secret, the password of its URL, or the value of a header cannot be decrypted: start walhook with the --secret-key that encrypted it, or rotate the secret and set URL and headers again"

// orNone is nil for settings that change nothing.
func (s EndpointSettings) orNone() (*EndpointSettings, error) {
	if s.HTTPVerb == "post" && s.Format == "" && s.CustomData == nil && s.Retries == nil && s.RateLimit == 0 && s.Batch == 0 {
		return nil, nil
	}
	if s.CustomData != nil {
		var compact bytes.Buffer
		if err := json.Compact(&compact, s.CustomData); err != nil {
			return nil, fmt.Errorf("custom data: %w", err)
		}
		s.CustomData = compact.Bytes()
	}
	return &s, nil
}

const confirmSQL = `
	UPDATE walhook.endpoint e SET confirmed_revision = c.revision FROM unnest($1::bigint[], $2::bigint[]) AS c(id, revision)
	WHERE e.id = c.id AND e.confirmed_revision < c.revision AND walhook.on_timeline($3)`

// Confirm says that this sender starts no attempt any more by what endpoints were
// before these revisions.
func (s *Session) Confirm(ctx context.Context, known []EndpointRevision) error {
	var ids, revisions []int64
	for _, e := range known {
		if e.Confirm {
			ids, revisions = append(ids, e.ID), append(revisions, e.Revision)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := s.store.pool.Exec(ctx, confirmSQL, ids, revisions, s.timeline); err != nil {
		return fmt.Errorf("confirm which endpoints changed: %w", err)
	}
	return nil
}
