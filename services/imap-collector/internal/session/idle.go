package session

import (
	"errors"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// Woken is why a wait for news has ended.
type Woken int

// The reasons there are.
const (
	ByNews Woken = iota // the number of messages in the selected folder has changed
	ByTime
	ByWish // one of the channels was ready
)

// CanIdle tells whether the server tells news by itself (RFC 2177).
func (s *Session) CanIdle() bool { return s.caps.Has(imap.CapIdle) }

// AwaitNews blocks until something changes in the selected folder, until stop or leave can be received from, or for limit; where the server does not
// tell news it is all but the first. No command may be in flight. Limit must be below 29 minutes, after which servers may close the connection (RFC 2177
// §3).
func (s *Session) AwaitNews(limit time.Duration, stop, leave <-chan struct{}) (Woken, error) {
	if !s.CanIdle() {
		return s.pause(limit, stop, leave)
	}
	const doing = "IDLE"
	s.begin(smallAnswer, 0)
	var idle *imapclient.IdleCommand
	err := s.do(func() (err error) {
		idle, err = s.client.Idle()
		return err
	})
	if err != nil {
		s.end()
		return 0, s.problem(doing, err)
	}
	s.conn.Idle(limit + s.patience)
	woken, ended := s.sleep(limit, stop, leave)
	if !ended {
		s.begin(smallAnswer, 0)
	}
	err = s.do(func() error { return errors.Join(idle.Close(), idle.Wait()) })
	s.end()
	return woken, s.problem(doing, err)
}

// pause waits without IDLE, and asks at its end whether there are news.
func (s *Session) pause(limit time.Duration, stop, leave <-chan struct{}) (Woken, error) {
	woken, ended := s.sleep(limit, stop, leave)
	if ended || woken == ByTime {
		return woken, s.Noop()
	}
	return woken, nil
}

// sleep waits for what ends a wait; ended tells that it was the connection.
func (s *Session) sleep(limit time.Duration, stop, leave <-chan struct{}) (woken Woken, ended bool) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.news:
		return ByNews, false
	case <-timer.C:
		return ByTime, false
	case <-stop:
		return ByWish, false
	case <-leave:
		return ByWish, false
	case <-s.client.Closed():
		return ByNews, true
	}
}

// Noop asks the server whether it is there, and blocks until it has answered.
func (s *Session) Noop() error {
	s.begin(smallAnswer, 0)
	err := s.do(s.client.Noop().Wait)
	s.end()
	return s.problem("NOOP", err)
}
