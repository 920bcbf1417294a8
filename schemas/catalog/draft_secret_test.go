package catalog

import (
	"strings"
	"testing"
)

func TestDraft_LeavesOutWhatLooksSecret(t *testing.T) {
	t.Parallel()
	table := &Table{Key: []string{"id"}}
	for kind, names := range map[string]string{
		"text": "password passwords pins pin_code pincode hashes ha1 md5_password psk sip_psk jwt access_jwt bearer ssn ssn4 otp otpcode cvc cvc2 track2 pan " +
			"recovery_codes reset_code security_answer mother_maiden_name puk tokens keys apiKey card_number dob birthday uipass loginkey secret_monkey",
		"integer": "pin ssn4 cvc2 otp card_number",
	} {
		for name := range strings.FieldsSeq(names) {
			if !isSecret(table, &TableColumn{Name: name, Type: kind}) {
				t.Errorf("%s, %s: is to be left out", name, kind)
			}
		}
	}
	for kind, names := range map[string]string{
		"text":    "monkey hockey hotkey compass secretary turkey keyboard bypass passive answer_time answered reset_date recovery_mode spinning auth_type number id",
		"integer": "id tokens keys secret_id card_id",
		"boolean": "has_password",
	} {
		for name := range strings.FieldsSeq(names) {
			if isSecret(table, &TableColumn{Name: name, Type: kind}) {
				t.Errorf("%s, %s: is to be sent", name, kind)
			}
		}
	}
}
