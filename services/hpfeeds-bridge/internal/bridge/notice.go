package bridge

import (
	"time"

	"github.com/rs/zerolog"
)

// repeatAfter is how soon the same words are logged again.
const repeatAfter = time.Minute

// notice logs one kind of trouble: when it begins, when it changes, once a minute while it lasts, and its end. So a broker that is away for an
// hour is sixty lines and not thousands. It belongs to one goroutine.
type notice struct {
	said map[string]time.Time // in this trouble
}

// warn logs the trouble unless that has just been said.
func (n *notice) warn(log *zerolog.Logger, err error, message string) {
	now := time.Now()
	if before, again := n.said[err.Error()]; again && now.Sub(before) < repeatAfter {
		return
	}
	if n.said == nil {
		n.said = make(map[string]time.Time)
	}
	n.said[err.Error()] = now
	log.Warn().Str("cause", err.Error()).Msg(message)
}

// clear forgets the trouble, and tells whether there was one.
func (n *notice) clear() bool {
	had := n.said != nil
	n.said = nil
	return had
}
