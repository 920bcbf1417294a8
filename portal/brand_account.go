package portal

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/outbox/admin"
)

// brandTimeout bounds the look at an account's brand, so that a page comes without it.
const brandTimeout = 2 * time.Second

// brand is what the page looks like: like the portal of its account, or of the session's,
// and on other pages like the configuration says. A brand that cannot be read is no reason
// to show no page.
func (v *visit) brand() Brand {
	account := cmp.Or(v.account, v.session.Account, v.invited)
	if account == "" || v.p.cfg.Brands == nil {
		return v.p.cfg.Brand
	}
	ctx, cancel := context.WithTimeoutCause(v.r.Context(), brandTimeout, errors.New("read the brand of an account"))
	defer cancel()
	rows, err := v.p.cfg.Brands(ctx, account)
	if err != nil {
		v.p.log.Warn("brand of an account not read, the page has that of the configuration", zap.String("account", account), zap.Error(err))
		return v.p.cfg.Brand
	}
	return brandOf(rows, v.p.cfg.Brand, v.p.ignored.note)
}

// brandOf joins what rows say, that of the account first, then that of the account above
// it and so on, and what the configuration says. Each part comes from the nearest row that
// has a valid one. A name ends the search: what is above it, and the logo and support link
// of the configuration, belong to somebody else. ignore gets each value that is not valid.
func brandOf(rows []admin.AccountBrand, configured Brand, ignore func(account, part, why string)) Brand {
	var b Brand
	for _, row := range rows {
		if row.Unreadable {
			ignore(row.Account, "all", "what the outbox keeps of the account cannot be read")
			continue
		}
		take(row.Accent, b.Accent.set, ParseAccent, func(a Accent) { b.Accent = a }, func(why string) { ignore(row.Account, "accent", why) })
		take(row.Support, b.Support != "", ParseSupport, func(s string) { b.Support = s }, func(why string) { ignore(row.Account, "support", why) })
		take(row.Name, false, ParseName, func(s string) { b.Name = s }, func(why string) { ignore(row.Account, "name", why) })
		if b.Name != "" {
			break
		}
	}
	if !b.Accent.set {
		b.Accent = configured.Accent
	}
	if b.Name == "" {
		b.Name, b.Logo, b.LogoDark, b.Support = configured.Name, configured.Logo, configured.LogoDark, cmp.Or(b.Support, configured.Support)
	}
	return b
}

// take reads a value of a row, unless there is none or a nearer row had one.
func take[T any](value *string, has bool, parse func(string) (T, error), set func(T), ignore func(why string)) {
	if value == nil || has {
		return
	}
	parsed, err := parse(*value)
	if err != nil {
		ignore(err.Error())
		return
	}
	set(parsed)
}

// ignoredEvery is how often the log has a line about the same value, and ignoredRemember
// how many values are remembered.
const (
	ignoredEvery    = time.Hour
	ignoredRemember = 10_000
)

// ignoredValues logs values of rows that are not valid, each once in a while: every page
// of an account reads them again.
type ignoredValues struct {
	log *zap.Logger

	mu   sync.Mutex // guards last
	last map[[2]string]time.Time
}

func newIgnoredValues(log *zap.Logger) *ignoredValues {
	return &ignoredValues{log: log, last: map[[2]string]time.Time{}}
}

// note logs that a part of an account's brand is ignored. why says what is wanted, and
// nothing of the value.
func (i *ignoredValues) note(account, part, why string) {
	key, now := [2]string{account, part}, time.Now()
	i.mu.Lock()
	known := !i.last[key].IsZero() && now.Sub(i.last[key]) < ignoredEvery
	if !known {
		if len(i.last) >= ignoredRemember {
			clear(i.last)
		}
		i.last[key] = now
	}
	i.mu.Unlock()
	if !known {
		i.log.Warn("brand in an account's row ignored", zap.String("account", account), zap.String("part", part), zap.String("reason", why))
	}
}
