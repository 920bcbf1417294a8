package outbox

// What the account above is told of an endpoint (docs/RECEIVERS.md). It is put
// into the inbox by the transaction that it is about.
const (
	// A result's flat envelope, and the account that it is about. to_json
	// escapes what JSON asks for and nothing else.
	noticeSQL = `
		INSERT INTO walhook.inbox (account, above, webhook_id, record, schema, type, body)
		SELECT account, true, 'notice_' || replace(gen_random_uuid()::text, '-', ''), 'notice/' || account, 'webhook.disabled', 'update',
			convert_to('{"type":"update","schema":"webhook.disabled","status":"disabled","verbose":' || to_json(reason) ||
				',"account":' || to_json(account) || '}', 'UTF8')
		FROM `

	tellDisabledSQL = noticeSQL + `(SELECT $1::text AS account, $2::text AS reason) AS d`
)
