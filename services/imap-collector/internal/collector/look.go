package collector

import (
	"time"

	"spamtraps.internal/imap-collector/internal/account"
)

// Looked is what is known of one mailbox now.
type Looked struct {
	Status
	Account  account.Account
	LastLook time.Time // at all folders, with success
	LastMail time.Time // that the broker confirmed
	Problem  string    // why the last look was none, "" when it was one
	Stale    bool
}

// confirmedOne notes that the broker has a mail.
func (m *mailbox) confirmedOne() {
	m.metrics.lastMail.SetToCurrentTime()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastMail = time.Now()
}

// Look returns what is known of each mailbox now, in the order of the accounts. It does not block.
func (c *Collector) Look() []Looked {
	now := time.Now()
	all := make([]Looked, len(c.mailboxes))
	for i, m := range c.mailboxes {
		_, stale := m.stale(now, c.shared.cfg.StaleAfter)
		all[i] = Looked{Status: m.show(), Account: m.account, Stale: stale}
		m.mu.Lock()
		all[i].LastLook, all[i].LastMail, all[i].Problem = m.lastLook, m.lastMail, m.problem
		m.mu.Unlock()
	}
	return all
}
