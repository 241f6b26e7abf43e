package collector

import (
	"context"
	"math/rand/v2"
	"time"

	"spamtraps.internal/imap-collector/internal/session"
)

// pauseRule is how long a mailbox is left alone after a failure: least, and beside that a pause between nothing and a limit that doubles from first to
// longest.
type pauseRule struct{ least, first, longest time.Duration }

// pauseRules are by the kind of the failure. A wrong password is tried at most every five minutes, for many tries lock an account.
var pauseRules = map[session.Kind]pauseRule{
	session.Network:     {first: time.Second, longest: 5 * time.Minute},
	session.Protocol:    {first: time.Second, longest: 5 * time.Minute},
	session.Refused:     {first: 5 * time.Second, longest: 10 * time.Minute},
	session.TLS:         {least: 5 * time.Second, first: 30 * time.Second, longest: 10 * time.Minute},
	session.Throttled:   {least: time.Minute, first: time.Minute, longest: 15 * time.Minute},
	session.Credentials: {least: 5 * time.Minute, first: time.Minute, longest: 55 * time.Minute},
}

// pauses are those of one mailbox.
type pauses struct {
	jitter func(time.Duration) time.Duration
	kind   session.Kind
	tries  int
}

// next returns how long to wait after a failure of this kind. A wrong password waits longer each time, without chance: five minutes, ten, up to an hour.
func (p *pauses) next(kind session.Kind) time.Duration {
	if kind != p.kind {
		p.kind, p.tries = kind, 0
	}
	rule := pauseRules[kind]
	limit := rule.longest
	if p.tries < 16 {
		limit = min(rule.longest, rule.first<<p.tries)
	}
	least := rule.least
	if kind == session.Credentials && p.tries < 16 {
		least = min(time.Hour-rule.first, rule.least<<p.tries)
		limit = rule.first
	} else if kind == session.Credentials {
		least, limit = time.Hour-rule.first, rule.first
	}
	p.tries++
	return least + p.jitter(limit)
}

func (p *pauses) reset() { p.tries = 0 }

func fullJitter(d time.Duration) time.Duration { return rand.N(d + 1) }

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
