package amqp

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	repeatAfter = time.Minute     // the same words are logged again
	changeAfter = 5 * time.Second // other words are; a broker that restarts goes through several states
)

// notice logs one kind of trouble: when it begins, when it changes, once a minute while it lasts, and its end. So a broker
// that is away for an hour is sixty lines and not a million.
type notice struct {
	mu   sync.Mutex
	said map[string]time.Time // in this trouble
	last time.Time
}

// warn logs the trouble unless that has just been said.
func (n *notice) warn(log *zerolog.Logger, what, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	words, now := join(what, why), time.Now()
	if n.said == nil {
		n.said = map[string]time.Time{}
	} else if before, again := n.said[words]; again && now.Sub(before) < repeatAfter || now.Sub(n.last) < changeAfter {
		return
	}
	n.said[words], n.last = now, now
	log.Warn().Str("cause", why).Msg("amqp: " + what)
}

// over logs the end of a trouble that has been logged.
func (n *notice) over(log *zerolog.Logger, what string, lasted time.Duration) {
	if n.clear() {
		log.Info().Dur("after", lasted).Msg("amqp: " + what)
	}
}

// clear forgets the trouble, and tells whether there was one.
func (n *notice) clear() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	had := n.said != nil
	n.said = nil
	return had
}

func join(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}
