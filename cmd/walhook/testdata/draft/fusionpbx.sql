-- After the public structure of FusionPBX's tables: uuid keys named after their tables,
-- the domain's uuid in each table, no foreign key.
CREATE TABLE v_domains (
    domain_uuid uuid PRIMARY KEY, domain_parent_uuid uuid, domain_name text, domain_enabled boolean, domain_description text,
    insert_date timestamptz, insert_user uuid, update_date timestamptz, update_user uuid);
CREATE TABLE v_users (
    user_uuid uuid PRIMARY KEY, domain_uuid uuid, contact_uuid uuid, username text, password text, salt text, user_email text, user_status text, api_key uuid,
    user_totp_secret text, user_type text, user_enabled text, add_date timestamptz);
CREATE TABLE v_contacts (
    contact_uuid uuid PRIMARY KEY, domain_uuid uuid, contact_type text, contact_organization text, contact_name_given text, contact_name_family text, contact_note text);
CREATE TABLE v_extensions (
    extension_uuid uuid PRIMARY KEY, domain_uuid uuid, extension text, number_alias text, password text, accountcode text, effective_caller_id_name text,
    effective_caller_id_number text, outbound_caller_id_number text, emergency_caller_id_number text, directory_visible text, limit_max text, user_context text,
    toll_allow text, call_group text, hold_music text, auth_acl text, do_not_disturb text, forward_all_destination text, enabled text, description text);
CREATE TABLE v_extension_users (extension_user_uuid uuid PRIMARY KEY, domain_uuid uuid, extension_uuid uuid, user_uuid uuid);
CREATE TABLE v_voicemails (
    voicemail_uuid uuid PRIMARY KEY, domain_uuid uuid, voicemail_id text, voicemail_password text, greeting_id numeric, voicemail_mail_to text, voicemail_sms_to text,
    voicemail_transcription_enabled text, voicemail_enabled text, voicemail_description text);
CREATE TABLE v_voicemail_messages (
    voicemail_message_uuid uuid PRIMARY KEY, domain_uuid uuid, voicemail_uuid uuid, created_epoch numeric, read_epoch numeric, caller_id_name text, caller_id_number text,
    message_length numeric, message_status text, message_transcription text, message_base64 text);
CREATE TABLE v_destinations (
    destination_uuid uuid PRIMARY KEY, domain_uuid uuid, dialplan_uuid uuid, fax_uuid uuid, destination_type text, destination_number text, destination_caller_id_name text,
    destination_context text, destination_accountcode text, destination_enabled text, destination_description text);
CREATE TABLE v_devices (
    device_uuid uuid PRIMARY KEY, domain_uuid uuid, device_profile_uuid uuid, device_mac_address text, device_label text, device_vendor text, device_enabled text,
    device_template text, device_username text, device_password text, device_provisioned_date timestamptz);
CREATE TABLE v_device_lines (
    device_line_uuid uuid PRIMARY KEY, domain_uuid uuid, device_uuid uuid, line_number text, server_address text, display_name text, user_id text, auth_id text, password text, enabled text);
CREATE TABLE v_device_vendors (device_vendor_uuid uuid PRIMARY KEY, name text, enabled text);
CREATE TABLE v_gateways (
    gateway_uuid uuid PRIMARY KEY, domain_uuid uuid, gateway text, username text, password text, auth_username text, realm text, proxy text, register text, profile text, enabled text);
CREATE TABLE v_ring_groups (ring_group_uuid uuid PRIMARY KEY, domain_uuid uuid, ring_group_name text, ring_group_extension text, ring_group_strategy text, ring_group_enabled text);
CREATE TABLE v_ring_group_destinations (
    ring_group_destination_uuid uuid PRIMARY KEY, domain_uuid uuid, ring_group_uuid uuid, destination_number text, destination_delay numeric, destination_timeout numeric);
CREATE TABLE v_fax (fax_uuid uuid PRIMARY KEY, domain_uuid uuid, dialplan_uuid uuid, fax_extension text, fax_name text, fax_email text, fax_pin_number text);
CREATE TABLE v_xml_cdr (
    xml_cdr_uuid uuid PRIMARY KEY, domain_uuid uuid, extension_uuid uuid, domain_name text, accountcode text, direction text, caller_id_name text, caller_id_number text,
    destination_number text, start_stamp timestamptz, answer_stamp timestamptz, end_stamp timestamptz, duration numeric, billsec numeric, hangup_cause text, pin_number text,
    record_path text, record_name text, json json);
CREATE TABLE v_default_settings (default_setting_uuid uuid PRIMARY KEY, default_setting_category text, default_setting_name text, default_setting_value text);
CREATE TABLE v_software (software_uuid uuid, software_name text, software_version text);
COMMENT ON TABLE v_domains IS 'Tenants';
