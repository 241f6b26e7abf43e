package collector

import (
	"fmt"
	"strings"
	"time"
)

// mostNamed is how many stale mailboxes Health names.
const mostNamed = 5

// staleMailbox is a mailbox that was not looked at for too long.
type staleMailbox struct{ name, why string }

func (c *Collector) stale(now time.Time) []staleMailbox {
	var stale []staleMailbox
	for _, m := range c.mailboxes {
		if why, is := m.stale(now, c.shared.cfg.StaleAfter); is {
			stale = append(stale, staleMailbox{name: m.account.Name, why: why})
		}
	}
	return stale
}

// Health tells whether the collector as a whole can do its work, which is so as long as one mailbox can, and in words which mailboxes are
// stale and why. It does not block.
func (c *Collector) Health() (ok bool, text string) {
	stale := c.stale(time.Now())
	connected := 0
	for _, m := range c.mailboxes {
		switch m.show().Doing {
		case DoingFetching, DoingIdling:
			connected++
		}
	}
	text = fmt.Sprintf("imap: %d of %d mailboxes connected", connected, len(c.mailboxes))
	if len(stale) == 0 {
		return true, text
	}
	var words []string
	for _, m := range stale[:min(mostNamed, len(stale))] {
		words = append(words, fmt.Sprintf("%s %s", m.name, m.why))
	}
	text += fmt.Sprintf("; %d stale: %s", len(stale), strings.Join(words, "; "))
	if len(stale) > mostNamed {
		text += fmt.Sprintf("; and %d more", len(stale)-mostNamed)
	}
	return len(stale) < len(c.mailboxes), text
}
