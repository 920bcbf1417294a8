package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"walhook/api"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/portal"
	"walhook/sender/deliver"
)

const portalLong = `Prints a link that opens the portal of an account: the page that shows what became
of its events. The link is valid for 15 minutes and opens once; the session lasts
12 hours and is for this account alone. Give the link to somebody of the account,
or open it yourself.

It needs only the outbox: --outbox, or --source if they are one database. Set
--portal-url as for 'walhook run', or the link begins with the address of --listen.`

func newPortalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "portal <account>",
		Short: "Print a one-time link to an account's page",
		Long:  portalLong,
		Example: `  walhook portal 7 --outbox postgres://walhook@db/walhook
  walhook portal 7 --portal-url https://webhooks.example.com/portal/`,
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if account := args[0]; account == "." || account == ".." {
			return fmt.Errorf("account %s has no page and no API: browsers and proxies take its id for a step in a path, also percent-encoded. walhook endpoints shows its webhooks", account)
		}
		s, err := loadSettings(cmd)
		if err != nil {
			return err
		}
		if s.PortalURL == nil {
			return usage(errors.New("no process serves the portal on --listen off: set --portal-url to the address where one does"))
		}
		return withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			unknown, err := a.IsUnknown(ctx, args[0])
			if err != nil {
				return err
			}
			if unknown {
				return fmt.Errorf("account %s is not in the source: check the id", printable(args[0]))
			}
			link, err := a.CreatePortalLink(ctx, admin.Caller{}, args[0], admin.Once{}, nil)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, api.PortalLinkURL(s.PortalURL.String(), link.Secret))
			return err
		})(cmd, args)
	}
	addSettings(cmd, "source", "outbox", "listen", "tls-cert", "tls-key", "portal-url")
	return cmd
}

// parsePortalURL reads the public address of the portal. It ends with a slash.
func parsePortalURL(s *settings, text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q: want a URL such as https://webhooks.example.com/portal/", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("want a URL without a user name, a query and a fragment")
	}
	s.PortalURL = u.JoinPath("/")
	return nil
}

// completePortal derives the portal's address, unless it is set or there is no portal.
func (s *settings) completePortal() {
	if !s.Portal {
		s.PortalURL = nil
		return
	}
	if s.PortalURL != nil || s.Listen == "" {
		return
	}
	host, port, err := net.SplitHostPort(s.Listen)
	if err != nil {
		return // the setting listen has the fault
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		name, _ := os.Hostname() // for people only
		host = cmp.Or(name, "localhost")
	}
	scheme, standard := "http", "80"
	if s.TLSCert != "" {
		scheme, standard = "https", "443"
	}
	address := net.JoinHostPort(host, port)
	if port == standard {
		address = strings.TrimSuffix(address, ":"+port)
	}
	s.PortalURL = &url.URL{Scheme: scheme, Host: address, Path: portal.Prefix}
}

// portal returns the pages, which call the API within the process.
func (s service) portal(store *outbox.Store, subscriptions http.Handler, log *zap.Logger) (http.Handler, error) {
	client, err := api.ClientAddress(s.trustedProxies)
	if err != nil {
		return nil, err
	}
	cfg := portal.Config{
		API: subscriptions, Admin: admin.New(store), AdminToken: s.adminToken, URL: s.portalURL, Client: client,
		Offer: offerInForce(store, s.source.Catalog), Reasons: portalReasons(true), Causes: portalReasons(false), Version: readBuild().version,
		Brand: s.portalBrand, FrameAncestors: s.portalFrameAncestors,
	}
	catalogs := store.FollowCatalog(s.source.Catalog)
	cfg.Brands = func(ctx context.Context, account string) ([]admin.AccountBrand, error) {
		return cfg.Admin.Brands(ctx, catalogs, account)
	}
	if s.console != nil {
		cfg.Doctor, cfg.Source = s.console.doctor, s.console.source()
	}
	return portal.New(cfg, log)
}

// portalReasons say what a reason means, for accounts in their own words.
func portalReasons(forAccounts bool) map[string]string {
	means := map[string]string{}
	for _, r := range outbox.Explain().DeadLetters {
		means[r.Name] = r.Cause
	}
	for _, r := range deliver.Reasons() {
		if means[r.Name] = r.Cause; forAccounts && r.Account != "" {
			means[r.Name] = r.Account
		}
	}
	delete(means, "2xx")
	return means
}

// withPortal passes what is below the portal's path to the portal, unless there is none.
func withPortal(pages, others http.Handler) http.Handler {
	if pages == nil {
		return others
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, portal.Prefix):
			pages.ServeHTTP(w, r)
		case r.URL.Path+"/" == portal.Prefix:
			w.Header().Set("Location", strings.TrimPrefix(portal.Prefix, "/"))
			w.WriteHeader(http.StatusSeeOther)
		default:
			others.ServeHTTP(w, r)
		}
	})
}
