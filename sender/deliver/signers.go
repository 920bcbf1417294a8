package deliver

import (
	"slices"
	"sync"

	"walhook/outbox"
)

// signers keeps the signers of endpoints whose events are signed without being sent. It
// is safe for many goroutines.
type signers struct {
	mu   sync.Mutex
	kept map[int64]keptSigner // by endpoint; guarded by mu
}

// keptSigner is a signer with the secrets that it signs with.
type keptSigner struct {
	secrets []string
	*signer
}

func (s *signers) of(e *outbox.Endpoint) (*signer, error) {
	s.mu.Lock()
	kept, known := s.kept[e.ID]
	s.mu.Unlock()
	if known && slices.Equal(kept.secrets, e.Secrets) {
		return kept.signer, nil
	}
	made, err := newSigner(e.Secrets)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil || len(s.kept) >= mostTargets {
		s.kept = map[int64]keptSigner{}
	}
	s.kept[e.ID] = keptSigner{e.Secrets, made}
	return made, nil
}
