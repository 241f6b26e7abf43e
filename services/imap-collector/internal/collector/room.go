package collector

import (
	"container/list"
	"context"
	"sync"
)

const (
	// fullBatch and fullBatchBytes are how much is asked for at once while few mailboxes are busy: more wins nothing.
	fullBatch, fullBatchBytes = 64, 1 << 20
	// leastBatch and leastBatchBytes are how much may always be asked for at once.
	leastBatch, leastBatchBytes = 4, 64 << 10
	// batches is how many batches a busy mailbox should have room for.
	batches = 4
)

// room is what all mailboxes together may have in hand: bytes of mail in memory, and mails that are not yet marked. What a command will bring is
// reserved before it is sent, so nothing that is being read ever waits for room, and nobody who waits holds any. Those who wait are served in the order
// of their coming.
type room struct {
	mu               sync.Mutex
	bytes, mostBytes int64
	mails, mostMails int
	busy             int // mailboxes that fetch
	waiting          list.List
}

// claim is an amount of room.
type claim struct {
	bytes int64
	mails int
}

type waiter struct {
	claim
	granted chan struct{}
}

func newRoom(bytes int64, mails int) *room { return &room{mostBytes: bytes, mostMails: mails} }

// weigh makes a claim one that can be granted at all: what is larger than all room gets all of it.
func (r *room) weigh(c claim) claim {
	return claim{bytes: min(c.bytes, r.mostBytes), mails: min(c.mails, r.mostMails)}
}

func (r *room) fits(c claim) bool {
	return r.bytes+c.bytes <= r.mostBytes && r.mails+c.mails <= r.mostMails
}

// try takes room if there is some and nobody waits for it.
func (r *room) try(c claim) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting.Len() > 0 || !r.fits(c) {
		return false
	}
	r.bytes += c.bytes
	r.mails += c.mails
	return true
}

// take waits until there is room and takes it, or returns ctx's error. The caller must hold none, or it might wait for itself.
func (r *room) take(ctx context.Context, c claim) error {
	r.mu.Lock()
	if r.waiting.Len() == 0 && r.fits(c) {
		r.bytes += c.bytes
		r.mails += c.mails
		r.mu.Unlock()
		return nil
	}
	w := &waiter{claim: c, granted: make(chan struct{})}
	place := r.waiting.PushBack(w)
	r.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-w.granted: // in the same moment
		r.bytes -= c.bytes
		r.mails -= c.mails
	default:
		r.waiting.Remove(place)
	}
	r.grant()
	return ctx.Err()
}

func (r *room) give(c claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes -= c.bytes
	r.mails -= c.mails
	r.grant()
}

func (r *room) grant() {
	for r.waiting.Len() > 0 {
		first := r.waiting.Front()
		w := first.Value.(*waiter)
		if !r.fits(w.claim) {
			return
		}
		r.waiting.Remove(first)
		r.bytes += w.bytes
		r.mails += w.mails
		close(w.granted)
	}
}

// work notes that a mailbox begins to fetch, or ends.
func (r *room) work(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy += n
}

// batch returns how much to ask for at once, so that all who are busy find room, and servers that hang cannot sit on much of it.
func (r *room) batch() claim {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy := max(1, r.busy)
	return claim{
		bytes: min(fullBatchBytes, max(leastBatchBytes, r.mostBytes/int64(batches*busy))),
		mails: min(fullBatch, max(leastBatch, r.mostMails/(batches*busy))),
	}
}

// load returns what is taken.
func (r *room) load() claim {
	r.mu.Lock()
	defer r.mu.Unlock()
	return claim{bytes: r.bytes, mails: r.mails}
}
