-- After the public structure of Asterisk's realtime tables: texts as keys, endpoints, auths
-- and AORs that share one id, no foreign key, and the account code that calls are billed
-- by. The table of tenants is the carrier's own.
CREATE TABLE tenants (id serial PRIMARY KEY, accountcode varchar(80) NOT NULL UNIQUE, name text, notify_url text);
CREATE TABLE ps_endpoints (
    id varchar(255) PRIMARY KEY, transport varchar(40), aors varchar(2048), auth varchar(255), context varchar(40), disallow varchar(200), allow varchar(200), direct_media text,
    outbound_auth varchar(255), outbound_proxy varchar(255), mailboxes varchar(1024), callerid varchar(40), from_user varchar(40), max_audio_streams int, accountcode varchar(80));
CREATE TABLE ps_auths (
    id varchar(255) PRIMARY KEY, auth_type text, nonce_lifetime int, md5_cred varchar(40), password varchar(80), realm varchar(255), username varchar(40), refresh_token varchar(255),
    oauth_clientid varchar(255), oauth_secret varchar(255));
CREATE TABLE ps_aors (
    id varchar(255) PRIMARY KEY, contact varchar(255), default_expiration int, mailboxes varchar(80), max_contacts int, remove_existing text, qualify_frequency int);
CREATE TABLE ps_contacts (
    id varchar(255) NOT NULL UNIQUE, uri varchar(511), expiration_time bigint, qualify_frequency int, user_agent varchar(255), endpoint varchar(255), reg_server varchar(255),
    via_addr varchar(40), via_port int, call_id varchar(255));
CREATE TABLE ps_endpoint_id_ips (id varchar(255) PRIMARY KEY, endpoint varchar(255), match varchar(80), srv_lookups text);
CREATE TABLE ps_registrations (id varchar(255) PRIMARY KEY, client_uri varchar(255), server_uri varchar(255), outbound_auth varchar(255), expiration int);
CREATE TABLE sippeers (
    id serial PRIMARY KEY, name varchar(40) NOT NULL UNIQUE, ipaddr varchar(45), host varchar(40), type text, context varchar(40), secret varchar(40), md5secret varchar(40), remotesecret varchar(40),
    accountcode varchar(80), mailbox varchar(40), callerid varchar(40));
CREATE TABLE voicemail (
    uniqueid serial PRIMARY KEY, context varchar(80) NOT NULL, mailbox varchar(80) NOT NULL, password varchar(80) NOT NULL, fullname varchar(80), email varchar(80), pager varchar(80));
CREATE TABLE queues (name varchar(128) PRIMARY KEY, musiconhold varchar(128), context varchar(128), timeout int, strategy text, maxlen int);
CREATE TABLE queue_members (
    queue_name varchar(80) NOT NULL, interface varchar(80) NOT NULL, membername varchar(80), penalty int, paused int, uniqueid serial NOT NULL UNIQUE, PRIMARY KEY (queue_name, interface));
CREATE TABLE extensions (id bigserial PRIMARY KEY, context varchar(40) NOT NULL, exten varchar(40) NOT NULL, priority int NOT NULL, app varchar(40) NOT NULL, appdata varchar(256) NOT NULL);
CREATE TABLE musiconhold (name varchar(80) PRIMARY KEY, mode text, directory varchar(255));
CREATE TABLE cdr (
    accountcode varchar(80), src varchar(80), dst varchar(80), dcontext varchar(80), clid varchar(80), channel varchar(80), dstchannel varchar(80), lastapp varchar(80),
    "start" timestamp, answer timestamp, "end" timestamp, duration int, billsec int, disposition varchar(45), amaflags varchar(45), userfield varchar(256), uniqueid varchar(150), linkedid varchar(150),
    peeraccount varchar(80), sequence int);
