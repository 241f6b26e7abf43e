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

// room is what all mailboxes together may have of one thing. There are two: the memory, bytes of mail, of which a command has what it will bring before it is
// sent, so that nothing that is being read ever waits; and the window, mails that are published and not yet marked. Those who wait are served in
// the order of their coming. Who waits for memory holds none, and who waits for a place in the window has none: what is in the window needs nothing more to
// leave it.
type room struct {
	mu          sync.Mutex
	taken, most int64
	waiting     list.List
}

type waiter struct {
	amount  int64
	granted chan struct{}
}

func newRoom(most int64) *room { return &room{most: most} }

// weigh makes an amount one that can be granted at all: what is larger than all room gets all of it.
func (r *room) weigh(amount int64) int64 { return min(amount, r.most) }

func (r *room) fits(amount int64) bool { return r.taken+amount <= r.most }

// try takes room if there is some and nobody waits for it.
func (r *room) try(amount int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting.Len() > 0 || !r.fits(amount) {
		return false
	}
	r.taken += amount
	return true
}

// take waits until there is room and takes it, or returns ctx's error. The caller must hold none, or it might wait for itself.
func (r *room) take(ctx context.Context, amount int64) error {
	r.mu.Lock()
	if r.waiting.Len() == 0 && r.fits(amount) {
		r.taken += amount
		r.mu.Unlock()
		return nil
	}
	w := &waiter{amount: amount, granted: make(chan struct{})}
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
		r.taken -= amount
	default:
		r.waiting.Remove(place)
	}
	r.grant()
	return ctx.Err()
}

func (r *room) give(amount int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken -= amount
	r.grant()
}

func (r *room) grant() {
	for r.waiting.Len() > 0 {
		first := r.waiting.Front()
		w := first.Value.(*waiter)
		if !r.fits(w.amount) {
			return
		}
		r.waiting.Remove(first)
		r.taken += w.amount
		close(w.granted)
	}
}

// load returns how much is taken.
func (r *room) load() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken
}

// part returns how many places of the window a busy mailbox has, if all that are busy have as many.
func (s *shared) part() int64 { return max(leastBatch, s.window.most/max(1, s.busy.Load())) }

// batch returns how much to ask for at once, so that all who are busy find room, and servers that hang cannot sit on much of it.
func (s *shared) batch() (mails int, bytes int64) {
	return int(min(fullBatch, s.part())), min(fullBatchBytes, max(leastBatchBytes, s.memory.most/(batches*max(1, s.busy.Load()))))
}

// afloat returns how many mails a mailbox may have that were fetched and are not yet marked: its part of the window is never empty then. Who was busy
// alone may have all of it; if his server hangs then, others wait until it is given up (IMAP_TIMEOUT).
func (s *shared) afloat() int { return int(s.part() + min(fullBatch, s.part())) }

// enough returns how many confirmed mails are worth a command while others are on their way: so few that all who are busy leave most of the window free.
func (s *shared) enough() int { return int(min(actBatch, max(1, s.part()/2))) }
