package collector

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"spamtraps.internal/imap-collector/internal/account"
)

// hosts keeps what the mailboxes of one host share: how many connections there may be, and how fast they may be made.
type hosts struct {
	most  int
	rate  rate.Limit
	mu    sync.Mutex
	known map[string]*host
}

// manyWaiting is how many calls for a slot are remembered.
const manyWaiting = 1 << 12

// host is one server, as seen from one address of ours.
type host struct {
	slots  *semaphore.Weighted // nil: any number
	wanted chan struct{}       // one for each who waits for a slot: whoever idles on one should take it and leave
	logins *rate.Limiter
}

func (h *hosts) of(a *account.Account) *host {
	proxy, _ := a.Proxy.Reveal() // whoever dials sees the error
	key := strings.ToLower(a.Host) + " " + proxy
	h.mu.Lock()
	defer h.mu.Unlock()
	if found, ok := h.known[key]; ok {
		return found
	}
	made := &host{logins: rate.NewLimiter(h.rate, max(1, int(h.rate))), wanted: make(chan struct{}, manyWaiting)}
	if h.most > 0 {
		made.slots = semaphore.NewWeighted(int64(h.most))
	}
	if h.known == nil {
		h.known = make(map[string]*host)
	}
	h.known[key] = made
	return made
}

// enter waits for a slot and for the turn to log in; leave gives the slot back.
func (h *host) enter(ctx context.Context) error {
	if h.slots != nil && !h.slots.TryAcquire(1) {
		select {
		case h.wanted <- struct{}{}:
		default: // enough are told to leave
		}
		if err := h.slots.Acquire(ctx, 1); err != nil {
			return err
		}
	}
	if err := h.logins.Wait(ctx); err != nil {
		h.leave()
		return err
	}
	return nil
}

func (h *host) leave() {
	if h.slots != nil {
		h.slots.Release(1)
	}
}
