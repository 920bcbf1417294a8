-- After the public structure of A2Billing's tables: cards are the accounts, references are
-- named id_cc_card, card_id, id_card or iduser, and none is a foreign key.
CREATE TABLE cc_card_group (id serial PRIMARY KEY, name text, description text, id_agent int);
CREATE TABLE cc_card (
    id bigserial PRIMARY KEY, creationdate timestamp NOT NULL DEFAULT now(), expirationdate timestamp, username text NOT NULL UNIQUE, useralias text NOT NULL UNIQUE, uipass text NOT NULL DEFAULT '',
    credit numeric(12,4) NOT NULL DEFAULT 0, tariff int DEFAULT 0, id_didgroup int DEFAULT 0, activated boolean NOT NULL DEFAULT false, status int DEFAULT 1, lastname text, firstname text,
    address text, city text, country text, zipcode text, phone text, email text, currency varchar(3) DEFAULT 'USD', creditlimit int DEFAULT 0, sip_buddy int DEFAULT 0, language text,
    loginkey text, lock_pin varchar(15), mac_addr varchar(17), id_group int DEFAULT 1, company_name text, vat numeric(6,3));
CREATE TABLE cc_callerid (id bigserial PRIMARY KEY, cid text NOT NULL UNIQUE, id_cc_card bigint NOT NULL, activated char(1) DEFAULT 't');
CREATE TABLE cc_sip_buddies (
    id serial PRIMARY KEY, id_cc_card int NOT NULL DEFAULT 0, name varchar(80) NOT NULL UNIQUE, accountcode varchar(20), callerid varchar(80), context varchar(80), host varchar(31),
    secret varchar(80), md5secret varchar(80), username varchar(80), ipaddr varchar(45), regseconds int, allow varchar(100));
CREATE TABLE cc_did (
    id bigserial PRIMARY KEY, id_cc_didgroup bigint NOT NULL DEFAULT 0, id_cc_country int NOT NULL DEFAULT 0, activated int NOT NULL DEFAULT 1, reserved int DEFAULT 0, iduser bigint DEFAULT 0,
    did text NOT NULL UNIQUE, creationdate timestamp DEFAULT now(), billingtype int DEFAULT 0, fixrate numeric(12,4) NOT NULL DEFAULT 0);
CREATE TABLE cc_did_destination (
    id bigserial PRIMARY KEY, destination text NOT NULL, priority int NOT NULL DEFAULT 0, id_cc_card bigint NOT NULL, id_cc_did bigint NOT NULL, activated int NOT NULL DEFAULT 1, voip_call int DEFAULT 0);
CREATE TABLE cc_didgroup (id bigserial PRIMARY KEY, iduser bigint DEFAULT 0, didgroupname text);
CREATE TABLE cc_call (
    id bigserial PRIMARY KEY, sessionid text NOT NULL, uniqueid text NOT NULL, card_id bigint NOT NULL, starttime timestamp NOT NULL DEFAULT now(), stoptime timestamp, sessiontime int,
    calledstation text, sessionbill numeric(12,4), id_ratecard int, id_trunk int, src text, id_did int, buycost numeric(15,5) DEFAULT 0, terminatecauseid int DEFAULT 1);
CREATE TABLE cc_logrefill (id bigserial PRIMARY KEY, date timestamp NOT NULL DEFAULT now(), credit numeric(12,4) NOT NULL, card_id bigint NOT NULL, description text, refill_type int DEFAULT 0);
CREATE TABLE cc_logpayment (id bigserial PRIMARY KEY, date timestamp NOT NULL DEFAULT now(), payment numeric(12,4) NOT NULL, card_id bigint NOT NULL, id_logrefill bigint, description text);
CREATE TABLE cc_charge (id bigserial PRIMARY KEY, id_cc_card bigint NOT NULL, iduser int NOT NULL DEFAULT 0, creationdate timestamp DEFAULT now(), amount numeric(12,4) NOT NULL, chargetype int, id_cc_did bigint);
CREATE TABLE cc_invoice (id bigserial PRIMARY KEY, reference varchar(30) NOT NULL UNIQUE, id_card bigint NOT NULL, date timestamp NOT NULL DEFAULT now(), paid_status int, status int, title text, description text);
CREATE TABLE cc_invoice_item (id bigserial PRIMARY KEY, id_invoice bigint NOT NULL, date timestamp NOT NULL DEFAULT now(), price numeric(15,5) NOT NULL, vat numeric(4,2), description text);
CREATE TABLE cc_epayment_log (
    id bigserial PRIMARY KEY, cardid bigint NOT NULL DEFAULT 0, amount text NOT NULL DEFAULT '0', paymentmethod text, cc_owner varchar(64), cc_number varchar(32), cc_expires varchar(7), cvv varchar(4), status int);
CREATE TABLE cc_voucher (id bigserial PRIMARY KEY, voucher text NOT NULL UNIQUE, credit numeric(12,4), activated boolean, used int DEFAULT 0, usedcardnumber text);
CREATE TABLE cc_agent (id bigserial PRIMARY KEY, login text NOT NULL, passwd text, email text, commission numeric(10,4));
CREATE TABLE cc_speeddial (id bigserial PRIMARY KEY, id_cc_card bigint NOT NULL, phone text NOT NULL, name text NOT NULL, speeddial int);
CREATE TABLE cc_ratecard (id serial PRIMARY KEY, idtariffplan int NOT NULL, dialprefix text NOT NULL, rateinitial numeric(15,5) NOT NULL DEFAULT 0);
CREATE TABLE cc_trunk (id_trunk serial PRIMARY KEY, trunkcode text, providerip text);
