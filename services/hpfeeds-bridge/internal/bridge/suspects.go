package bridge

import (
	"crypto/sha256"
	"errors"

	"spamtraps.internal/libs/hpfeeds"
)

const (
	// strikes is how often a mail must have been alone on a connection that failed, before it is suspected to be why.
	strikes = 3
	// maxSuspects is how many mails are remembered.
	maxSuspects = 64
)

// suspects finds the mail that a broker cannot bear, such as one above a frame limit that nobody has told us: it closes the connection each
// time, without a word, and the mail would come round for ever and keep the others back. After a connection has failed that way, while the broker was there
// again at once, mails go out one at a time until those that were on their way have passed. One that was alone on three connections that failed is
// held back; it is guilty only once another mail has passed, since else it is the broker that is broken.
type suspects struct {
	careful int // how many mails still go alone
	struck  map[[sha256.Size]byte]int
	cause   error // of the last strike
}

// Key tells mails apart by their bytes.
func Key(body []byte) [sha256.Size]byte { return sha256.Sum256(body) }

// failed notes that a connection has failed with so many mails on their way, one at least; alone is the mail if there was only one.
func (s *suspects) failed(err error, flying int, alone []byte) {
	var e *hpfeeds.Error
	if !errors.As(err, &e) {
		return
	}
	switch e.Reason {
	case hpfeeds.ReasonClosed, hpfeeds.ReasonHungUp, hpfeeds.ReasonRefused:
	default:
		return
	}
	s.careful = max(s.careful, flying)
	if alone == nil {
		return
	}
	if s.struck == nil {
		s.struck = make(map[[sha256.Size]byte]int)
	}
	if k := Key(alone); len(s.struck) < maxSuspects || s.struck[k] > 0 {
		s.struck[k]++
		s.cause = err
	}
}

// away notes that no connection can be made: so that was why, and no mail.
func (s *suspects) away(err error) {
	var e *hpfeeds.Error
	if errors.As(err, &e) && e.Reason == hpfeeds.ReasonUnreachable {
		*s = suspects{}
	}
}

// suspected tells whether a mail is to be held back.
func (s *suspects) suspected(body []byte) bool {
	return len(s.struck) > 0 && s.struck[Key(body)] >= strikes
}

// passed notes that a mail went through alone.
func (s *suspects) passed(body []byte) {
	s.careful = max(0, s.careful-1)
	delete(s.struck, Key(body))
}

// forget takes a mail off the list, because its fate is settled.
func (s *suspects) forget(body []byte) { delete(s.struck, Key(body)) }
