// Package memory bounds how many bytes of mail are held at once, and shares them out so that large mails never starve small
// ones, nor each other.
package memory

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// leastOwn and mostOwn bound what every Room has for itself.
	leastOwn, mostOwn = 4 << 10, 64 << 10
	// ownShare is which part of a Budget all rooms together have for themselves, at most.
	ownShare = 4
)

// Budget is an amount of memory that many Rooms share. Each Room has a little of its own, which is always there: small mails
// never wait. The rest is a pool, first come first served. When the pool is used up by mails that are half here, one of them gets
// what it needs all the same, so that it is done with some day; for that one the largest mail is kept back.
type Budget struct {
	own       int64
	pool      *semaphore.Weighted
	privilege chan struct{} // has the one Room that may take more than the pool has
	pooled    atomic.Int64  // what is taken of the pool
}

// Pooled returns how many bytes are taken of what the rooms share, beside what each has for itself.
func (b *Budget) Pooled() int64 { return b.pooled.Load() }

// NewBudget returns a Budget of total bytes for so many rooms, each of which holds a mail of largest bytes at most. Total should
// be several times largest: less than that may be overdrawn.
func NewBudget(total int64, rooms int, largest int64) *Budget {
	own := min(max(total/ownShare/int64(rooms), leastOwn), mostOwn)
	return &Budget{
		own:       own,
		pool:      semaphore.NewWeighted(max(0, total-own*int64(rooms)-largest)),
		privilege: make(chan struct{}, 1),
	}
}

// Room is what one connection may hold. Its methods are for one goroutine at a time.
type Room struct {
	budget     *Budget
	held       int64 // of the pool
	privileged bool
}

// NewRoom returns a Room that holds nothing. It needs no end when it is empty.
func (b *Budget) NewRoom() *Room { return &Room{budget: b} }

// Grow makes room for total bytes in all. It waits for the pool while it must, or until ctx ends, and then returns ctx's error
// and leaves the Room as it was. A Room does not shrink by it.
func (r *Room) Grow(ctx context.Context, total int64) error {
	more := total - r.budget.own - r.held
	if more <= 0 || r.privileged {
		return nil
	}
	if r.budget.pool.TryAcquire(more) {
		r.hold(more)
		return nil
	}
	return r.wait(ctx, more)
}

// wait waits for the pool or for the privilege, whichever comes first.
func (r *Room) wait(ctx context.Context, more int64) error {
	waiting, enough := context.WithCancel(ctx)
	defer enough()
	pooled := make(chan error, 1)
	go func() { pooled <- r.budget.pool.Acquire(waiting, more) }()
	select {
	case err := <-pooled:
		if err != nil {
			return err
		}
		r.hold(more)
		return nil
	case r.budget.privilege <- struct{}{}:
	case <-ctx.Done():
		enough()
		if <-pooled == nil { // in the same moment
			r.hold(more)
			return nil
		}
		return ctx.Err()
	}
	r.privileged = true
	enough()
	if <-pooled == nil {
		r.budget.pool.Release(more)
	}
	return nil
}

func (r *Room) hold(more int64) {
	r.held += more
	r.budget.pooled.Add(more)
}

// Free gives everything back. It is harmless when there is nothing.
func (r *Room) Free() {
	if r.held > 0 {
		r.budget.pool.Release(r.held)
		r.hold(-r.held)
	}
	if r.privileged {
		r.privileged = false
		<-r.budget.privilege
	}
}
