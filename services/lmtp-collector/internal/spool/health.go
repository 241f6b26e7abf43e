package spool

import (
	"context"
	"fmt"
	"strings"
	"time"

	"spamtraps.internal/libs/daemon"
)

// HasDisk tells whether there is a maildir.
func (s *Spool) HasDisk() bool { return s.disk != nil }

// Health tells for /readyz how things are with the maildir, which there must be: whether it can take mail, and in words what
// waits in it, "spool: 1,204 waiting, oldest 3 min".
func (s *Spool) Health() (ok bool, text string) {
	stats := s.disk.Stats()
	parts := []string{"nothing waiting"}
	if stats.Waiting > 0 {
		parts[0] = fmt.Sprintf("%s waiting, oldest %s", daemon.Thousands(stats.Waiting), daemon.Age(time.Since(stats.Oldest)))
	}
	if stats.Aside > 0 {
		parts = append(parts, daemon.Thousands(stats.Aside)+" set aside")
	}
	if stats.Unknown > 0 {
		parts = append(parts, daemon.Thousands(stats.Unknown)+" of a newer version left alone")
	}
	text = "spool: " + strings.Join(parts, ", ")
	if err := s.disk.Ready(); err != nil {
		return false, text + "; " + err.Error()
	}
	return true, text
}

// tell logs how far it is, while there is something to replay, until ctx ends.
func (s *Spool) tell(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.tellOnce()
		case <-ctx.Done():
			return
		}
	}
}

func (s *Spool) tellOnce() {
	replayed, waiting := s.replayed.Load(), s.disk.Stats().Waiting
	switch {
	case replayed > 0 && waiting == 0:
		s.replayed.Add(-replayed)
		s.log.Info().Int64("replayed", replayed).Msg("the maildir's mail is through")
	case waiting > 0:
		s.log.Info().Int64("replayed", replayed).Int64("waiting", waiting).Msg("mail waits in the maildir")
	}
}
