-- For docker-compose.yml, after internal/carrier/tables.sql: an account whose
-- webhooks go to the receiver, and a database for the outbox.
INSERT INTO users (id, username, email, web_hook_url)
VALUES (1, 'example', 'example@example.com', 'http://receiver:9090/');
SELECT setval(pg_get_serial_sequence('users', 'id'), 1);

CREATE DATABASE outbox;
