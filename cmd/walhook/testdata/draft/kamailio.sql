-- After the public structure of Kamailio's tables: numbers as keys, texts as references
-- (user name and domain), no foreign key anywhere.
CREATE TABLE version (table_name varchar(32) NOT NULL UNIQUE, table_version int NOT NULL DEFAULT 0);
CREATE TABLE domain (id serial PRIMARY KEY, domain varchar(64) NOT NULL UNIQUE, did varchar(64), last_modified timestamp NOT NULL DEFAULT now());
CREATE TABLE domain_attrs (id serial PRIMARY KEY, did varchar(64) NOT NULL, name varchar(32) NOT NULL, type int NOT NULL, value varchar(255) NOT NULL, last_modified timestamp);
CREATE TABLE subscriber (
    id serial PRIMARY KEY, username varchar(64) NOT NULL DEFAULT '', domain varchar(64) NOT NULL DEFAULT '', password varchar(64) NOT NULL DEFAULT '',
    ha1 varchar(128) NOT NULL DEFAULT '', ha1b varchar(128) NOT NULL DEFAULT '', email_address varchar(128), rpid varchar(128),
    UNIQUE (username, domain));
CREATE TABLE usr_preferences (
    id serial PRIMARY KEY, uuid varchar(64) NOT NULL DEFAULT '', username varchar(255) NOT NULL DEFAULT '0', domain varchar(64) NOT NULL DEFAULT '',
    attribute varchar(32) NOT NULL DEFAULT '', type int NOT NULL DEFAULT 0, value varchar(128) NOT NULL DEFAULT '', last_modified timestamp);
CREATE TABLE dbaliases (
    id serial PRIMARY KEY, alias_username varchar(64) NOT NULL DEFAULT '', alias_domain varchar(64) NOT NULL DEFAULT '',
    username varchar(64) NOT NULL DEFAULT '', domain varchar(64) NOT NULL DEFAULT '');
CREATE TABLE speed_dial (
    id serial PRIMARY KEY, username varchar(64) NOT NULL DEFAULT '', domain varchar(64) NOT NULL DEFAULT '', sd_username varchar(64) NOT NULL DEFAULT '',
    sd_domain varchar(64) NOT NULL DEFAULT '', new_uri varchar(255) NOT NULL DEFAULT '', fname varchar(64) NOT NULL DEFAULT '', lname varchar(64) NOT NULL DEFAULT '',
    description varchar(64) NOT NULL DEFAULT '');
CREATE TABLE location (
    id serial PRIMARY KEY, ruid varchar(64) NOT NULL UNIQUE, username varchar(64) NOT NULL DEFAULT '', domain varchar(64), contact varchar(512) NOT NULL DEFAULT '',
    received varchar(255), path varchar(512), expires timestamp NOT NULL DEFAULT '2030-05-28 21:32:15', q real NOT NULL DEFAULT 1, callid varchar(255) NOT NULL DEFAULT '',
    cseq int NOT NULL DEFAULT 1, last_modified timestamp, flags int NOT NULL DEFAULT 0, user_agent varchar(255) NOT NULL DEFAULT '', socket varchar(64),
    methods int, instance varchar(255), server_id int NOT NULL DEFAULT 0, connection_id int NOT NULL DEFAULT 0);
CREATE TABLE dialog (
    id serial PRIMARY KEY, hash_entry int NOT NULL, hash_id int NOT NULL, callid varchar(255) NOT NULL, from_uri varchar(255) NOT NULL, from_tag varchar(128) NOT NULL,
    to_uri varchar(255) NOT NULL, to_tag varchar(128) NOT NULL, state int NOT NULL, start_time int NOT NULL, timeout int NOT NULL DEFAULT 0, xdata varchar(512));
CREATE TABLE acc (
    id serial PRIMARY KEY, method varchar(16) NOT NULL DEFAULT '', from_tag varchar(128) NOT NULL DEFAULT '', to_tag varchar(128) NOT NULL DEFAULT '',
    callid varchar(255) NOT NULL DEFAULT '', sip_code varchar(3) NOT NULL DEFAULT '', sip_reason varchar(128) NOT NULL DEFAULT '', time timestamp NOT NULL DEFAULT now(),
    src_user varchar(64) NOT NULL DEFAULT '', src_domain varchar(128) NOT NULL DEFAULT '', dst_user varchar(64) NOT NULL DEFAULT '', dst_domain varchar(128) NOT NULL DEFAULT '');
CREATE TABLE missed_calls (
    id serial PRIMARY KEY, method varchar(16) NOT NULL DEFAULT '', callid varchar(255) NOT NULL DEFAULT '', sip_code varchar(3) NOT NULL DEFAULT '', time timestamp NOT NULL DEFAULT now());
CREATE TABLE dispatcher (id serial PRIMARY KEY, setid int NOT NULL DEFAULT 0, destination varchar(192) NOT NULL DEFAULT '', flags int NOT NULL DEFAULT 0, attrs varchar(128));
CREATE TABLE uacreg (
    id serial PRIMARY KEY, l_uuid varchar(64) NOT NULL DEFAULT '', l_username varchar(64) NOT NULL DEFAULT '', l_domain varchar(64) NOT NULL DEFAULT '', r_username varchar(64) NOT NULL DEFAULT '',
    r_domain varchar(64) NOT NULL DEFAULT '', realm varchar(64) NOT NULL DEFAULT '', auth_username varchar(64) NOT NULL DEFAULT '', auth_password varchar(64) NOT NULL DEFAULT '', auth_ha1 varchar(128));
