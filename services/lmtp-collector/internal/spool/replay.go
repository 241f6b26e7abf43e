package spool

import (
	"context"
	"errors"
	"sync"
	"time"

	"spamtraps.internal/lmtp-collector/internal/maildir"
)

const (
	// lookEvery is how often the publisher is asked whether it is ready again, while mail waits.
	lookEvery = 100 * time.Millisecond
	// pause is how long nothing is tried after a mail of the maildir was not taken.
	pause = 250 * time.Millisecond
	// progressEvery is how often the log tells how far it is.
	progressEvery = 30 * time.Second
	// stopGrace is what mails on their way get when Run is stopped; those that are not confirmed by then stay in the maildir.
	stopGrace = time.Second
)

// Run hands what lies in the maildir to the broker, oldest first, now and whenever there is something, until ctx ends; then it
// waits a second at most for what is on its way, and returns nil. Take works without it. The publisher must outlive it.
func (s *Spool) Run(ctx context.Context) error {
	if s.disk == nil {
		<-ctx.Done()
		return nil
	}
	publishing, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, giveUp) })()

	var onTheirWay sync.WaitGroup
	onTheirWay.Go(func() { s.tell(ctx) })
	for s.await(ctx) {
		mail, err := s.disk.Next(ctx)
		if err != nil { // ctx has ended
			<-s.share
			break
		}
		weight := min(mail.Size, s.bytes)
		if s.memory.Acquire(ctx, weight) != nil {
			s.disk.Return(mail)
			<-s.share
			break
		}
		onTheirWay.Go(func() {
			defer func() { <-s.share }()
			defer s.memory.Release(weight)
			s.replay(publishing, mail)
		})
	}
	onTheirWay.Wait()
	return nil
}

// await waits until a mail may be tried, and takes a place for it. It returns false when ctx ends.
func (s *Spool) await(ctx context.Context) bool {
	select {
	case s.share <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if s.passable() {
		return true
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !s.passable() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			<-s.share
			return false
		}
	}
	return true
}

// passable tells whether a mail of the maildir may be tried now.
func (s *Spool) passable() bool {
	return s.publisher.Ready() == nil && time.Now().UnixNano() >= s.notBefore.Load()
}

// replay tries one mail of the maildir.
func (s *Spool) replay(ctx context.Context, mail maildir.Waiting) {
	message, err := s.disk.Load(mail)
	if err == nil {
		err = s.publisher.Publish(ctx, message)
	}
	if err == nil {
		s.metrics.replayed.Inc()
		s.replayed.Add(1)
		s.log.Info().Str("spool_name", mail.Name).Str("message_id", message.MessageId).Int("size", len(message.Body)).
			TimeDiff("waited", time.Now(), mail.Since).Msg("replayed")
		s.updated(mail, s.disk.Delivered(mail))
		return
	}
	log := s.log.With().Str("spool_name", mail.Name).Str("message_id", message.MessageId).Logger()
	switch {
	case errors.Is(err, maildir.ErrVersion):
		log.Error().Err(err).Msg("left alone: run the newer version again to have this mail published")
	case isPermanent(err), errors.Is(err, maildir.ErrGone), errors.Is(err, maildir.ErrDamaged):
		log.Error().Err(err).Msg("set aside: this mail of the maildir cannot be published")
		s.updated(mail, s.disk.SetAside(mail, err.Error()))
	default:
		s.metrics.failed.Inc()
		s.notBefore.Store(time.Now().Add(pause).UnixNano())
		log.Debug().Err(err).Msg("replay failed")
		s.disk.Return(mail)
	}
}

// updated says if a mail that is done with could not be noted as such.
func (s *Spool) updated(mail maildir.Waiting, err error) {
	if err != nil {
		s.log.Error().Err(err).Str("spool_name", mail.Name).Msg("the maildir could not be brought up to date: the mail will be published again")
	}
}
