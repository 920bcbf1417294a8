package deliver

import (
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The failures of a feed over NATS. None of them is an account's to see.
const (
	failNATSDown        failure = "nats_disconnected"
	failNATSRefused     failure = "nats_refused" // the server refuses the credentials
	failNATSTLS         failure = "nats_tls"
	failNATSPermission  failure = "nats_permission" // for the subject of one event
	failNATSInbox       failure = "nats_inbox"      // no acknowledgement may arrive
	failNATSNoStream    failure = "nats_no_stream"
	failNATSNoSubject   failure = "nats_no_subject" // for the subject of one event
	failNATSFull        failure = "nats_stream_full"
	failNATSSubjectFull failure = "nats_subject_full"
	failNATSTooLarge    failure = "nats_too_large"
	failNATSRejected    failure = "nats_rejected" // any other error of JetStream
	failNATSTimeout     failure = "nats_timeout"  // the stream did not acknowledge in time
	failNATSCredentials failure = "nats_credentials"
)

// The reasons of what a stream has acknowledged.
const (
	natsAcked     = "nats_ack"
	natsDuplicate = "nats_ack_duplicate" // the stream had it, and dropped it
)

// Codes of JetStream that the client does not name (nats-server, server/errors.json).
const (
	codeAccountResources jetstream.ErrorCode = 10002
	codeMemoryResources  jetstream.ErrorCode = 10028
	codeStorageResources jetstream.ErrorCode = 10047
	codeStoreFailed      jetstream.ErrorCode = 10077 // of a stream: its limits, with the policy to discard new messages
)

// classifyNATS names the failure behind an error of a publication.
func classifyNATS(err error) failure {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case codeStoreFailed:
			if strings.Contains(api.Description, "per subject") { // no code tells them apart
				return failNATSSubjectFull
			}
			return failNATSFull
		case codeStorageResources, codeMemoryResources, codeAccountResources:
			return failNATSFull
		case jetstream.JSErrCodeStreamMessageExceedsMaximum:
			return failNATSTooLarge
		case jetstream.JSErrCodeStreamNotFound, jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
			return failNATSNoStream
		}
		return failNATSRejected
	}
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return failNATSTooLarge
	case errors.Is(err, errNATSInbox): // which is a permission, too
		return failNATSInbox
	case errors.Is(err, nats.ErrPermissionViolation):
		return failNATSPermission
	case errors.Is(err, errNATSUntaken):
		return failNATSNoSubject
	case isNoStream(err):
		return failNATSNoStream
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, jetstream.ErrAsyncPublishTimeout), errors.Is(err, jetstream.ErrTooManyStalledMsgs):
		return failNATSTimeout
	case errors.Is(err, jetstream.ErrInvalidJSAck):
		return failNATSRejected
	}
	return classifyNATSConnection(err)
}

// classifyNATSConnection names the failure behind the loss, or the lack, of a connection.
func classifyNATSConnection(err error) failure {
	if errors.Is(err, errCredentials) {
		return failNATSCredentials
	}
	if errors.Is(err, errNATSInbox) {
		return failNATSInbox
	}
	for _, refused := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported} {
		if errors.Is(err, refused) {
			return failNATSRefused
		}
	}
	for _, plain := range []error{errNATSTLS, nats.ErrSecureConnRequired, nats.ErrSecureConnWanted} {
		if errors.Is(err, plain) {
			return failNATSTLS
		}
	}
	if classifyTLS(err) != "" {
		return failNATSTLS
	}
	if _, is := errors.AsType[*BlockedAddressError](err); is {
		return failBlocked
	}
	return failNATSDown
}

// isNoStream says that nobody listens to an event's subject.
func isNoStream(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

// natsAnswered says whether a stream answered a publication that ended with an error, nil
// for its acknowledgement; or whether it is silent, so that another server may reach it.
func natsAnswered(err error) (answered, silent bool) {
	if err == nil {
		return true, false
	}
	if errors.Is(err, errAttemptTimeout) {
		return false, true
	}
	switch f := classifyNATS(err); f {
	case failNATSNoStream, failNATSTimeout:
		return false, true
	case failNATSFull, failNATSSubjectFull, failNATSTooLarge, failNATSRejected:
		_, is := errors.AsType[*jetstream.APIError](err)
		return is, false
	}
	return false, false
}
