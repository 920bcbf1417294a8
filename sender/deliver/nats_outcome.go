package deliver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The failures of a feed over NATS. None of them is an account's to see.
const (
	failNATSDown        failure = "nats_disconnected"
	failNATSRefused     failure = "nats_refused" // the server refuses the credentials
	failNATSTLS         failure = "nats_tls"
	failNATSPermission  failure = "nats_permission"
	failNATSNoStream    failure = "nats_no_stream"
	failNATSFull        failure = "nats_stream_full"
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
		case codeStoreFailed, codeStorageResources, codeMemoryResources, codeAccountResources:
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
	case errors.Is(err, nats.ErrPermissionViolation):
		return failNATSPermission
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
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
	for _, refused := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, refused) {
			return failNATSRefused
		}
	}
	if _, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return failNATSTLS
	}
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		return failNATSTLS
	}
	if _, is := errors.AsType[tls.RecordHeaderError](err); is {
		return failNATSTLS
	}
	if _, is := errors.AsType[tls.AlertError](err); is {
		return failNATSTLS
	}
	if errors.Is(err, nats.ErrSecureConnRequired) || errors.Is(err, nats.ErrSecureConnWanted) {
		return failNATSTLS
	}
	if _, is := errors.AsType[*BlockedAddressError](err); is {
		return failBlocked
	}
	return failNATSDown
}
