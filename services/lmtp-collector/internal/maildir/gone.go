package maildir

import (
	"context"
	"sync/atomic"
	"time"
)

// leftover tells whether something may lie in gone/, and wakes the one who deletes it.
type leftover struct {
	there *atomic.Bool
	wake  chan struct{} // has room for one word
}

// newLeftover returns one that does not know, which is that there may be something.
func newLeftover() leftover {
	l := leftover{there: new(atomic.Bool), wake: make(chan struct{}, 1)}
	l.add()
	return l
}

func (l *leftover) any() bool { return l.there.Load() }

// add notes that there is something.
func (l *leftover) add() {
	l.there.Store(true)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// deleteGone deletes what lies in gone/ whenever there is something, until ctx ends. It is one goroutine, one file after the other, so that
// new mail and mail that waits go first: deleting a file may take longer than publishing it.
func (m *Maildir) deleteGone(ctx context.Context) {
	for {
		select {
		case <-m.gone.wake:
		case <-ctx.Done():
			return
		}
		if !m.clearGone(ctx) {
			select { // the disk's trouble, or somebody who was not to wait
			case <-time.After(pauseDeleting):
				m.gone.add()
			case <-ctx.Done():
				return
			}
		}
	}
}

// pauseDeleting is how long nothing is deleted after it was interrupted.
const pauseDeleting = time.Second

// clearGone deletes what lies in gone/, and tells whether nothing is left.
func (m *Maildir) clearGone(ctx context.Context) bool {
	m.copies.dropping.Lock()
	defer m.copies.dropping.Unlock()
	return !m.dropGone(func(time.Time) bool { return ctx.Err() != nil || m.copies.urgent.Load() > 0 })
}

// dropGone deletes what lies in gone/ until enough says so, and tells whether it has. The caller holds dropping.
func (m *Maildir) dropGone(enough func(oldest time.Time) bool) (stopped bool) {
	m.gone.there.Store(false) // before the look, lest something that comes meanwhile is missed
	if stopped = m.dropUntil(goneFolder, enough); stopped {
		m.gone.there.Store(true)
	}
	return stopped
}
