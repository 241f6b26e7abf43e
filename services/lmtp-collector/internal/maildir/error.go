package maildir

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Why a mail that waits cannot be had: errors that Load's match.
var (
	ErrGone    = errors.New("the mail is not in the maildir any more: somebody deleted it")
	ErrDamaged = errors.New("the mail is not the one that was stored: somebody changed it")
	ErrVersion = errors.New("the envelope was written by a newer version")
)

// ErrUnknown is what the error of View.Find matches when there is no such mail.
var ErrUnknown = errors.New("there is no mail of that name")

// Error is a failure to write to the maildir. It is never permanent: the same may pass later.
type Error struct {
	Full bool  // for want of room
	Err  error // what we were doing, and why it failed
}

// Error returns the text of the cause.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// failure makes an *Error of what the disk said, counts it, and has Ready say no for a while.
func (m *Maildir) failure(doing string, err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	failed := &Error{Full: full, Err: fmt.Errorf("maildir: %s in %s: %w", doing, m.cfg.Path, err)}
	kind := "disk"
	if full {
		kind = "full"
	}
	m.metrics.errors.WithLabelValues(kind).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble, m.since = failed, time.Now()
	return failed
}
