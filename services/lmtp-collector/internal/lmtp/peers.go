package lmtp

import (
	"slices"
	"sync"
	"time"
)

// mostPeers is how many peers are remembered.
const mostPeers = 20

// Peer is one who has sent mail: an MTA of ours.
type Peer struct {
	Address  string // "" is the unix socket
	Mails    int64  // that were answered 250
	Bytes    int64
	LastMail time.Time
}

// peerWatch remembers the last peers.
type peerWatch struct {
	mu   sync.Mutex
	last []Peer
}

// see notes a mail that was taken.
func (w *peerWatch) see(address string, size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := slices.IndexFunc(w.last, func(p Peer) bool { return p.Address == address })
	if at < 0 {
		if len(w.last) == mostPeers {
			oldest := 0
			for i := range w.last {
				if w.last[i].LastMail.Before(w.last[oldest].LastMail) {
					oldest = i
				}
			}
			w.last = slices.Delete(w.last, oldest, oldest+1)
		}
		w.last = append(w.last, Peer{Address: address})
		at = len(w.last) - 1
	}
	p := &w.last[at]
	p.Mails++
	p.Bytes += int64(size)
	p.LastMail = time.Now()
}

// Peers returns those that sent mail last, the latest first.
func (s *Server) Peers() []Peer {
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	last := slices.Clone(s.peers.last)
	slices.SortFunc(last, func(a, b Peer) int { return b.LastMail.Compare(a.LastMail) })
	return last
}
