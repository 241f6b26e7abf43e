package amqp

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstRetry, longestRetry     = 100 * time.Millisecond, 2 * time.Second // the broker is away
	firstRefusal, longestRefusal = 5 * time.Second, time.Minute            // the broker says no to who we are or what we want
	firstProbe, longestProbe     = time.Second, 30 * time.Second           // a nack or a missed confirm: each try may leave a copy
	longestUnroutable            = 4 * time.Second                         // a return: no try leaves anything
	stableAfter                  = 5 * time.Second                         // a session that lasted so long is tried again at once
)

// backoff returns the longest pause before try number n, counted from 0: it doubles from first up to longest.
func backoff(first, longest time.Duration, n int) time.Duration {
	if n > 16 || first<<n > longest {
		return longest
	}
	return first << n
}

// fullJitter returns a pause between nothing and d, so that many publishers do not come back in the same moment.
func fullJitter(d time.Duration) time.Duration { return rand.N(d + 1) }

// pauses are those between tries to connect: short when the broker is away, long when someone has to change something first.
type pauses struct {
	jitter func(time.Duration) time.Duration
	slow   bool
	tries  int
}

// wait waits for the next pause, or until ctx ends.
func (p *pauses) wait(ctx context.Context, slow bool) {
	if slow != p.slow {
		p.slow, p.tries = slow, 0
	}
	timer := time.NewTimer(p.next())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (p *pauses) next() time.Duration {
	defer func() { p.tries++ }()
	if p.slow {
		return firstRefusal + p.jitter(backoff(firstRefusal, longestRefusal, p.tries)-firstRefusal)
	}
	return p.jitter(backoff(firstRetry, longestRetry, p.tries))
}
