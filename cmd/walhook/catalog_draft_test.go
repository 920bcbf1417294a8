package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"walhook/internal/pgtest"
	"walhook/schemas/catalog"
)

// draftWorld is a database after the structure of a public schema, and what its
// draft has to say.
type draftWorld struct {
	name, tables string
	account      string   // "" is guessed
	want         []string // lines of the draft
	never        []string // what must not be among the fields
}

var draftWorlds = []draftWorld{
	{
		name: "kamailio", // no foreign keys; domains are texts
		tables: `
CREATE TABLE domain (id serial PRIMARY KEY, domain varchar(64) NOT NULL UNIQUE, did varchar(64), last_modified timestamp);
CREATE TABLE subscriber (id serial PRIMARY KEY, username varchar(64) NOT NULL, domain varchar(64) NOT NULL, password varchar(64), ha1 varchar(128), ha1b varchar(128), email_address text);
CREATE TABLE location (id serial PRIMARY KEY, ruid varchar(64), username varchar(64), domain varchar(64), contact varchar(512), expires timestamp);
CREATE TABLE acc (id serial PRIMARY KEY, method varchar(16), callid varchar(255), sip_code varchar(3), time timestamp);
CREATE TABLE version (table_name varchar(32) NOT NULL, table_version int, UNIQUE (table_name));`,
		want: []string{"  table: public.domain", "  id: domain", "  url: web_hook_url", "    table: public.subscriber", "    owner: domain",
			"    # Left out, since they look secret: password, ha1, ha1b", "# - public.acc: no foreign key of one column and no column's name leads from it to public.domain."},
		never: []string{"password", "ha1", "ha1b"},
	},
	{
		name: "fusionpbx", // uuid keys named after their tables; no foreign keys
		tables: `
CREATE TABLE v_domains (domain_uuid uuid PRIMARY KEY, domain_parent_uuid uuid, domain_name text, domain_enabled text);
CREATE TABLE v_extensions (extension_uuid uuid PRIMARY KEY, domain_uuid uuid, extension text, password text, voicemail_pin text, description text);
CREATE TABLE v_extension_users (extension_user_uuid uuid PRIMARY KEY, extension_uuid uuid, user_uuid uuid);
CREATE TABLE v_users (user_uuid uuid PRIMARY KEY, domain_uuid uuid, username text, password text, salt text, api_key uuid);
CREATE TABLE v_xml_cdr (xml_cdr_uuid uuid PRIMARY KEY, domain_uuid uuid, caller_id_number text, duration numeric);
CREATE TABLE v_default_settings (default_setting_uuid uuid PRIMARY KEY, default_setting_name text);`,
		want: []string{"  table: public.v_domains", "  id: domain_uuid", "    owner: domain_uuid", "    # Left out, since they look secret: password, voicemail_pin",
			"    # Left out, since they look secret: password, salt, api_key", "    owner: {column: extension_uuid, schema: v_extensions}", "    # owner: {column: user_uuid, schema: v_users}"},
		never: []string{"password", "voicemail_pin", "api_key", "salt"},
	},
	{
		name: "asterisk", account: "tenants", // realtime tables with text keys, and a tenant of the carrier's own
		tables: `
CREATE TABLE tenants (id serial PRIMARY KEY, name text);
CREATE TABLE ps_endpoints (id varchar(40) PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, transport text, aors text, context text);
CREATE TABLE ps_aors (id varchar(40) PRIMARY KEY, endpoint varchar(40) REFERENCES ps_endpoints, max_contacts int);
CREATE TABLE ps_auths (id varchar(40) PRIMARY KEY, endpoint varchar(40) NOT NULL REFERENCES ps_endpoints, auth_type text, password text, md5_cred text, username text);
CREATE TABLE queue_members (queue_name text, interface text, uniqueid serial NOT NULL UNIQUE, endpoint varchar(40) REFERENCES ps_endpoints);
CREATE TABLE musiconhold (name varchar(80) PRIMARY KEY, mode text);
CREATE TABLE cdr (start timestamp, src text, dst text, billsec int);`,
		want: []string{"  # The table of accounts, as --account named it.", "  table: public.tenants", "    owner: tenant_id", "    owner: {column: endpoint, schema: ps_endpoints}",
			"    # Left out, since they look secret: auth_type, password, md5_cred", "    key: [uniqueid]", "# - public.cdr: it has neither a primary key nor a unique index without nulls."},
		never: []string{"password", "md5_cred"},
	},
	{
		name: "billing", // cards are accounts; columns are named id_cc_card
		tables: `
CREATE TABLE cc_card (id bigserial PRIMARY KEY, username varchar(50) NOT NULL UNIQUE, useralias text, uipass text, credit numeric(12,4), callback text);
CREATE TABLE cc_did (id bigserial PRIMARY KEY, id_cc_card bigint, did text, activated int);
CREATE TABLE cc_did_destination (id bigserial PRIMARY KEY, destination text, id_cc_card bigint, id_cc_did bigint);
CREATE TABLE cc_call (id bigserial PRIMARY KEY, card_id bigint NOT NULL, calledstation text, sessionbill numeric(12,4), sessionid text);
CREATE TABLE cc_epayment_log (id bigserial PRIMARY KEY, cardid bigint, amount numeric(12,4), cc_owner text, cc_number text, cvv text);
CREATE TABLE cc_ratecard (id bigserial PRIMARY KEY, dialprefix text, rateinitial numeric(12,4));`,
		want: []string{"  table: public.cc_card", "  id: id", "  url: callback", "    owner: id_cc_card", "    owner: card_id", "    owner: cardid",
			"    # Left out, since they look secret: cc_owner, cc_number, cvv", "# - public.cc_ratecard: no foreign key of one column and no column's name leads from it to public.cc_card."},
		never: []string{"cc_number", "cvv"},
	},
	{
		name: "webshop", // foreign keys, a schema of its own, comments, partitions, names that need quotes
		tables: `
CREATE SCHEMA shop;
CREATE TABLE shop.customers (id uuid PRIMARY KEY, parent_id uuid REFERENCES shop.customers, email text, password_hash text, webhook_url text);
COMMENT ON TABLE shop.customers IS E'Who buys.\nAlso: resellers # of ours';
CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer_id uuid NOT NULL REFERENCES shop.customers, billed_to uuid REFERENCES shop.customers, "totalAmount" numeric(12,2), "on" boolean, net numeric GENERATED ALWAYS AS ("totalAmount" / 2) STORED);
CREATE TABLE shop.order_items (order_id bigint NOT NULL REFERENCES shop.orders, line int, product_id bigint, quantity int, PRIMARY KEY (order_id, line));
CREATE TABLE shop."Order Notes" (id bigint PRIMARY KEY, order_id bigint REFERENCES shop.orders, note text);
CREATE TABLE shop.payments (id bigint, day date, order_id bigint NOT NULL REFERENCES shop.orders, card_number text, amount numeric, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE shop.payments_1 PARTITION OF shop.payments FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE shop.products (id bigint PRIMARY KEY, title text);
CREATE TABLE shop.carts (session_token text PRIMARY KEY, customer_id uuid REFERENCES shop.customers);
CREATE UNLOGGED TABLE shop.cache (id bigint PRIMARY KEY, customer_id uuid REFERENCES shop.customers);
CREATE VIEW shop.open_orders AS SELECT * FROM shop.orders;
CREATE TABLE orders (id int PRIMARY KEY, customer uuid);`,
		want: []string{"  # Who buys. Also: resellers # of ours", "  table: shop.customers", "  url: webhook_url", "  parent: parent_id", "    owner: customer_id", "    # owner: billed_to",
			`  Order_Notes:`, `    table: "shop.\"Order Notes\""`, "    owner: {column: order_id, schema: orders}", "    # Left out, since they look secret: card_number",
			"# - shop.cache: it is unlogged: its changes are not in the WAL.", "# - shop.carts: column session_token of its key looks secret."},
		never: []string{"password_hash", "card_number", "session_token"},
	},
}

// draftOf is the draft of a world, whose account table has got the column that the
// draft asked for.
func draftOf(t *testing.T, w draftWorld, db *pgtest.DB) (path, text string) {
	t.Helper()
	db.Exec(t, w.tables)
	path = filepath.Join(t.TempDir(), "catalog.yaml")
	args := []string{"catalog", "draft", "--source", db.URL, "--output", path}
	if w.account != "" {
		args = append(args, "--account", w.account)
	}
	if out, err := walhook(t, args...); err != nil {
		t.Fatalf("%s: %v %s", w.name, err, out)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text = string(content); strings.Contains(text, "ALTER TABLE") {
		unfolded := strings.ReplaceAll(text, "\n  # ", " ")
		statement := unfolded[strings.Index(unfolded, "ALTER TABLE"):]
		statement, _, _ = strings.Cut(statement, "\n")
		db.Exec(t, statement)
	}
	return path, text
}

func TestCatalogDraft_OfFiveSchemasIsRight(t *testing.T) {
	t.Parallel()
	for _, w := range draftWorlds {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			path, text := draftOf(t, w, db)
			lines := strings.Split(text, "\n")
			for _, want := range w.want {
				if !slices.Contains(lines, want) {
					t.Errorf("lacks the line %q", want)
				}
			}
			c, err := catalog.Parse([]byte(text))
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			for _, s := range c.Schemas {
				for _, f := range s.Fields {
					if slices.Contains(w.never, f.Column) {
						t.Errorf("%s sends %s", s.Name, f.Column)
					}
				}
			}
			if out, err := walhook(t, "catalog", "check", path, "--source", db.URL); err != nil || strings.Contains(out, "warning") {
				t.Errorf("check: %v\n%s", err, out)
			}
			args := []string{"catalog", "draft", "--source", db.URL}
			if w.account != "" {
				args = append(args, "--account", w.account)
			}
			first, _ := walhook(t, args...)
			db.Exec(t, "ANALYZE")
			if again, err := walhook(t, args...); err != nil || again != first {
				t.Errorf("a second draft differs: %v", err)
			}
			if _, err := walhook(t, "catalog", "draft", "--source", db.URL, "--output", path); exitStatus(t.Context(), err) != exitUsage && w.account == "" {
				t.Errorf("a file is replaced: %v", err)
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

func TestCatalogDraft_SaysWhatItCannotDo(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, "CREATE TABLE things (id int PRIMARY KEY); CREATE TABLE customer (id int PRIMARY KEY); CREATE TABLE nokey (a int)")
	for _, test := range []struct {
		args []string
		want string
		exit int
	}{
		{[]string{"--source", db.URL, "--account", "customers"}, "did you mean public.customer?", exitFault},
		{[]string{"--source", db.URL, "--account", "nokey"}, "neither a primary key", exitFault},
		{[]string{"--source", db.URL, "--account", `a"`}, "--account", exitUsage},
		{nil, "source is missing", exitUsage},
		{[]string{"--source", db.URL, "--output", "/does/not/exist/c.yaml"}, "--output", exitUsage},
	} {
		_, err := walhook(t, append([]string{"catalog", "draft"}, test.args...)...)
		if err == nil || !strings.Contains(err.Error(), test.want) || exitStatus(t.Context(), err) != test.exit {
			t.Errorf("%v: %v, want %s", test.args, err, test.want)
		}
	}
	empty := pgtest.Database(t)
	if _, err := walhook(t, "catalog", "draft", "--source", empty.URL); err == nil || !strings.Contains(err.Error(), "name it with --account") {
		t.Errorf("an empty database: %v", err)
	}
}
