package hpfeeds

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	firstRetry, longestRetry     = 100 * time.Millisecond, 2 * time.Second // the broker is away: it is back within 5 s of its return
	firstRefusal, longestRefusal = 5 * time.Second, 5 * time.Minute        // somebody has to change something
	stableAfter                  = 10 * time.Second                        // a connection that lasted so long is tried again at once
)

// Backoff makes the pauses between tries to connect: short while the broker is away, long while somebody has to change something first,
// with full jitter, so that many clients do not come back in the same moment. The zero value is ready. It is not safe for concurrent use.
type Backoff struct {
	// Jitter returns a time between nothing and its argument; nil is random.
	Jitter func(time.Duration) time.Duration

	slow     bool
	admitted bool // the present connection was of use
	hungUp   bool // the last failure looked like a refusal
	tries    int
}

// Admitted notes that the broker has shown that it accepts us, by something that came back or was taken: then the end of this connection is no refusal
// of the login, however soon it comes.
func (b *Backoff) Admitted() { b.admitted = true }

// Wait waits before the next try, after a connection that lasted so long ended with err (0 and Dial's error, when none was made). It
// returns early, with the cause, when ctx ends.
func (b *Backoff) Wait(ctx context.Context, lasted time.Duration, err error) error {
	timer := time.NewTimer(b.Next(lasted, err))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Next returns the pause that Wait would make.
func (b *Backoff) Next(lasted time.Duration, err error) time.Duration {
	slow := b.refused(err)
	if slow != b.slow || lasted >= stableAfter {
		b.slow, b.tries = slow, 0
	}
	jitter := b.Jitter
	if jitter == nil {
		jitter = func(d time.Duration) time.Duration { return rand.N(d + 1) }
	}
	defer func() { b.tries++ }()
	if slow {
		return firstRefusal + jitter(growing(firstRefusal, longestRefusal, b.tries)-firstRefusal)
	}
	return jitter(growing(firstRetry, longestRetry, b.tries))
}

// refused tells whether the broker said no, or has hung up at the login twice in a row: once may be its restart.
func (b *Backoff) refused(err error) bool {
	admitted := b.admitted
	b.admitted = false
	var e *Error
	if !errors.As(err, &e) {
		b.hungUp = false
		return false
	}
	before := b.hungUp
	b.hungUp = e.Reason == ReasonHungUp && !admitted
	return e.Permanent || (b.hungUp && before)
}

// growing returns the longest pause before try number n, counted from 0: it doubles from first up to longest.
func growing(first, longest time.Duration, n int) time.Duration {
	if n > 16 || first<<n > longest {
		return longest
	}
	return first << n
}
