package portal

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

var shownSecret = regexp.MustCompile(`whsec_[A-Za-z0-9+/=]+`)

// A secret that was replaced is not replaced again by a reload of the page that shows it.
func TestRotate_AReloadDoesNotReplaceTheSecretAgain(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID
	rotate := path + "/rotate"
	form := hiddenOf(t, b.get(t, path).text, rotate)
	form.Set("once", b.get(t, path).valueOf(t, "once"))
	form.Set("overlap_seconds", "0")
	const replaced = `SELECT count(*)::text FROM walhook.audit WHERE action = 'secret rotated'`
	first := b.post(t, rotate, form).want(t, http.StatusOK, "The new secret signs from now on.").lacks(t, "This form was sent before")
	secret := shownSecret.FindString(first.text)
	if next := first.valueOf(t, "once"); secret == "" || next == form.Get("once") {
		t.Fatalf("secret %q, and the next form has the key %s", secret, next)
	}
	again := b.post(t, rotate, form).want(t, http.StatusOK, "This form was sent before, so the secret is not replaced again.", secret).lacks(t, "The new secret signs")
	if got := w.one(t, replaced); got != "1" {
		t.Errorf("replaced %s times", got)
	}
	form.Set("once", again.valueOf(t, "once")) // of the page that shows it: to replace it once more
	other := shownSecret.FindString(b.post(t, rotate, form).want(t, http.StatusOK, "The new secret signs").text)
	if other == secret || w.one(t, replaced) != "2" {
		t.Error("another form does not replace it")
	}
}

// A reload after somebody replaced the secret meanwhile shows the one that signs.
func TestRotate_AReloadShowsTheSecretThatSigns(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	rotate := "a/7/webhooks/" + hook.ID + "/rotate"
	one := url.Values{"once": {"one"}, "overlap_seconds": {"0"}}
	gone := shownSecret.FindString(b.submit(t, rotate, one).text)
	signs := shownSecret.FindString(b.submit(t, rotate, url.Values{"once": {"two"}, "overlap_seconds": {"0"}}).text)
	b.submit(t, rotate, one).want(t, http.StatusOK, signs).lacks(t, gone)
}

// A form whose first sending still runs keeps its key, so that sending it again does
// nothing twice, and says so in the user's words.
func TestOnce_WhatStillRunsIsSaidInTheUsersWords(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	inner := w.portal.cfg.API
	w.portal.cfg.API = http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Idempotency-Key") == "" {
			inner.ServeHTTP(out, r)
			return
		}
		out.Header().Set("Content-Type", "application/json")
		out.Header().Set("Retry-After", "1")
		out.WriteHeader(http.StatusConflict)
		_, _ = out.Write([]byte(`{"message": "the first request with this Idempotency-Key is still running"}`))
	})
	for _, path := range []string{"a/7/webhooks/" + hook.ID + "/rotate", "a/7/webhooks/new"} {
		r := b.submit(t, path, url.Values{"once": {"mine"}, "overlap_seconds": {"0"}}).want(t, http.StatusConflict, "is still being done", `name="once" value="mine"`)
		if strings.Contains(r.text, "Idempotency-Key") {
			t.Errorf("%s: the words of the API: %s", path, r.text)
		}
	}
}
