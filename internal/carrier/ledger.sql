-- The source's own account of what must be delivered.
--
-- A row trigger on each carrier table calls born, changed or died, with the
-- accounts and bytes of that change. The triggers' name sorts before those of
-- the foreign keys, so a cascade is noted as the WAL has it: the parent first.
-- Rows that decide where an event goes (the parent's owner, the account's URL)
-- are locked against change until commit: so the order of the ledger is the
-- order of commits wherever it matters.

CREATE SCHEMA ledger;

-- One event that must be delivered. Numbers rise in commit order per record,
-- and per account against cleared.
CREATE TABLE ledger.expected (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    account text NOT NULL,
    schema  text NOT NULL,
    type    text NOT NULL,
    record  text NOT NULL,          -- the key; '' for an async result
    body    text NOT NULL           -- the request's body, byte for byte
);

-- An account's URL was cleared. What was expected before may stay undelivered.
CREATE TABLE ledger.cleared (
    seq     bigint PRIMARY KEY DEFAULT nextval('ledger.expected_seq_seq'),
    account text NOT NULL
);

-- Every change of a carrier table, whether it makes an event or not.
CREATE TABLE ledger.change (
    schema text NOT NULL,
    type   text NOT NULL
);

-- The account that a record was last sent to; it outlives the record. Null is
-- no owner.
CREATE TABLE ledger.owner (
    schema  text NOT NULL,
    record  text NOT NULL,
    account text,
    PRIMARY KEY (schema, record)
);

-- The accounts and their URLs.
CREATE TABLE ledger.account (
    id  text PRIMARY KEY,
    url text NOT NULL
);

-- With ledger.silent on, rows get their owners and nothing is expected.
CREATE FUNCTION ledger.silent() RETURNS boolean LANGUAGE sql STABLE
RETURN coalesce(current_setting('ledger.silent', true), '') = 'on';

CREATE FUNCTION ledger.count(_schema text, _op text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ledger.change (schema, type) SELECT _schema, lower(_op) WHERE NOT ledger.silent()
$$;

CREATE FUNCTION ledger.listens(_account text) RETURNS boolean LANGUAGE sql AS $$
    SELECT coalesce((SELECT url <> '' FROM ledger.account WHERE id = _account FOR SHARE), false)
$$;

CREATE FUNCTION ledger.owner_of(_schema text, _record text) RETURNS text LANGUAGE sql AS $$
    SELECT account FROM ledger.owner WHERE schema = _schema AND record = _record FOR SHARE
$$;

CREATE FUNCTION ledger.own(_schema text, _record text, _account text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ledger.owner AS o (schema, record, account) VALUES (_schema, _record, _account)
    ON CONFLICT (schema, record) DO UPDATE SET account = excluded.account
    WHERE o.account IS DISTINCT FROM excluded.account
$$;

CREATE FUNCTION ledger.expect(_account text, _schema text, _type text, _record text, _data text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF _account IS NULL OR ledger.silent() OR NOT ledger.listens(_account) THEN
        RETURN;
    END IF;
    INSERT INTO ledger.expected (account, schema, type, record, body)
    VALUES (_account, _schema, _type, _record,
        '{"type":' || to_json(_type) || ',"schema":' || to_json(_schema) || ',"data":' || to_json(_data) || '}');
END $$;

CREATE FUNCTION ledger.born(_schema text, _record text, _account text, _row text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.own(_schema, _record, _account);
    PERFORM ledger.expect(_account, _schema, 'insert', _record, _row);
END $$;

CREATE FUNCTION ledger.died(_schema text, _record text, _account text, _last text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.expect(_account, _schema, 'delete', _record, _last);
END $$;

-- A change of key or of account is a delete and an insert.
CREATE FUNCTION ledger.changed(_schema text, _was text, _record text, _from text, _to text, _last text, _row text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF _was = _record AND _from IS NOT DISTINCT FROM _to THEN
        PERFORM ledger.expect(_to, _schema, 'update', _record, _row);
    ELSE
        PERFORM ledger.died(_schema, _was, _from, _last);
        PERFORM ledger.born(_schema, _record, _to, _row);
    END IF;
END $$;

-- What a delete carries depends on the table's replica identity.
CREATE FUNCTION ledger.keeps_old_row(_table oid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT relreplident = 'f' FROM pg_class WHERE oid = _table
$$;

-- The account follows its own row: a URL counts from its own change on, the
-- delete is the last event.
CREATE FUNCTION ledger.follow_url(_account text, _url text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _before text := (SELECT url FROM ledger.account WHERE id = _account);
BEGIN
    INSERT INTO ledger.account AS a (id, url) VALUES (_account, coalesce(_url, ''))
    ON CONFLICT (id) DO UPDATE SET url = excluded.url WHERE a.url <> excluded.url;
    IF _before <> '' AND coalesce(_url, '') = '' AND NOT ledger.silent() THEN
        INSERT INTO ledger.cleared (account) VALUES (_account);
    END IF;
END $$;

CREATE FUNCTION ledger.on_users() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.count('users', TG_OP);
    IF TG_OP = 'UPDATE' AND OLD.id = NEW.id THEN
        PERFORM ledger.follow_url(NEW.id::text, NEW.web_hook_url);
        PERFORM ledger.expect(NEW.id::text, 'users', 'update', NEW.id::text, ledger.data(NEW));
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM ledger.expect(OLD.id::text, 'users', 'delete', OLD.id::text,
            CASE WHEN ledger.keeps_old_row(TG_RELID) THEN ledger.data(OLD) ELSE ledger.key(OLD) END);
        DELETE FROM ledger.account WHERE id = OLD.id::text;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM ledger.follow_url(NEW.id::text, NEW.web_hook_url);
        PERFORM ledger.expect(NEW.id::text, 'users', 'insert', NEW.id::text, ledger.data(NEW));
    END IF;
    RETURN NULL;
END $$;

-- A result by logical message has no row and no trigger: who emits it calls
-- this in the same transaction.
CREATE FUNCTION ledger.expect_result(_account text, _schema text, _type text, _status text, _verbose text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF ledger.silent() OR NOT ledger.listens(_account) THEN
        RETURN;
    END IF;
    INSERT INTO ledger.expected (account, schema, type, record, body)
    SELECT _account, _schema, _type, '', row_to_json(r)
    FROM (SELECT _type AS type, _schema AS schema, _status AS status, _verbose AS "verbose") r;
END $$;

CREATE FUNCTION ledger.on_async_results() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.count('async_results', TG_OP);
    PERFORM ledger.expect_result(NEW.user_id::text, NEW.schema, NEW.type, NEW.status, NEW."verbose");
    RETURN NULL;
END $$;

CREATE TRIGGER "00_ledger" AFTER INSERT ON public.async_results
FOR EACH ROW EXECUTE FUNCTION ledger.on_async_results();
