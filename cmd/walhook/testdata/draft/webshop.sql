-- A webshop with foreign keys: a schema of its own, comments, enumerations, keys of several
-- columns, partitions, generated columns, names that need quotes.
CREATE SCHEMA shop;
CREATE TYPE shop.order_state AS ENUM ('cart', 'placed', 'paid', 'shipped');
CREATE TABLE shop.customers (
    id uuid PRIMARY KEY, parent_id uuid REFERENCES shop.customers, email text NOT NULL UNIQUE, full_name text, password_hash text, date_of_birth date, webhook_url text, created_at timestamptz DEFAULT now());
COMMENT ON TABLE shop.customers IS E'Who buys.\nAlso: resellers # of ours';
CREATE TABLE shop.addresses (id uuid PRIMARY KEY, customer_id uuid NOT NULL REFERENCES shop.customers, street text, city text, zip text, country char(2));
CREATE TABLE shop.products (id bigint PRIMARY KEY, sku text NOT NULL UNIQUE, title text, price numeric(12,2), supplier_id bigint);
CREATE TABLE shop.suppliers (id bigint PRIMARY KEY, name text, api_key text);
ALTER TABLE shop.products ADD FOREIGN KEY (supplier_id) REFERENCES shop.suppliers;
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, customer_id uuid NOT NULL REFERENCES shop.customers, billed_to uuid REFERENCES shop.customers, ship_to uuid REFERENCES shop.addresses, state shop.order_state NOT NULL DEFAULT 'cart',
    "totalAmount" numeric(12,2), "on" boolean, net numeric GENERATED ALWAYS AS ("totalAmount" / 2) STORED);
CREATE TABLE shop.order_lines (
    order_id bigint NOT NULL REFERENCES shop.orders ON DELETE CASCADE, line int NOT NULL, product_id bigint REFERENCES shop.products, quantity int, price numeric(12,2), PRIMARY KEY (order_id, line));
CREATE TABLE shop."Order Notes" (id bigint PRIMARY KEY, order_id bigint REFERENCES shop.orders, note text);
CREATE TABLE shop.payments (
    id bigint NOT NULL, paid_on date NOT NULL, order_id bigint NOT NULL REFERENCES shop.orders, method text, card_number text, card_last_digits text, amount numeric(12,2), PRIMARY KEY (id, paid_on)) PARTITION BY RANGE (paid_on);
CREATE TABLE shop.payments_2026 PARTITION OF shop.payments FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE shop.refunds (id bigint PRIMARY KEY, payment_id bigint NOT NULL, paid_on date NOT NULL, amount numeric(12,2), FOREIGN KEY (payment_id, paid_on) REFERENCES shop.payments (id, paid_on));
CREATE TABLE shop.shipments (id uuid PRIMARY KEY, order_id bigint NOT NULL REFERENCES shop.orders, carrier text, tracking_number text, shipped_at timestamptz);
CREATE TABLE shop.shipment_events (id bigserial PRIMARY KEY, shipment_id uuid NOT NULL REFERENCES shop.shipments, at timestamptz, status text);
CREATE TABLE shop.reviews (id bigint PRIMARY KEY, product_id bigint NOT NULL REFERENCES shop.products, author_customer_id uuid, stars int, body text);
CREATE TABLE shop.coupons (code text PRIMARY KEY, percent int, customer_id uuid REFERENCES shop.customers);
CREATE TABLE shop.carts (session_token text PRIMARY KEY, customer_id uuid REFERENCES shop.customers);
CREATE UNLOGGED TABLE shop.cache (id bigint PRIMARY KEY, customer_id uuid REFERENCES shop.customers);
CREATE VIEW shop.open_orders AS SELECT * FROM shop.orders WHERE state <> 'shipped';
CREATE TABLE orders (id int PRIMARY KEY, customer uuid);
