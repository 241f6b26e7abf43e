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
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for s.publisher.Ready() != nil || time.Now().UnixNano() < s.notBefore.Load() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			<-s.share
			return false
		}
	}
	return true
}

// replay tries one mail of the maildir.
func (s *Spool) replay(ctx context.Context, mail maildir.Waiting) {
	log := s.log.With().Str("spool_name", mail.Name).Logger()
	message, err := s.disk.Load(mail)
	if err == nil {
		log = log.With().Str("message_id", message.MessageId).Logger()
		err = s.publisher.Publish(ctx, message)
	}
	switch {
	case err == nil:
		err = s.disk.Delivered(mail)
		s.metrics.replayed.Inc()
		s.replayed.Add(1)
		log.Info().Int("size", len(message.Body)).TimeDiff("waited", time.Now(), mail.Since).Msg("replayed")
	case errors.Is(err, maildir.ErrVersion):
		log.Error().Err(err).Msg("left alone: run the newer version again to have this mail published")
		return
	case isPermanent(err), errors.Is(err, maildir.ErrGone), errors.Is(err, maildir.ErrDamaged):
		log.Error().Err(err).Msg("set aside: this mail of the maildir cannot be published")
		err = s.disk.SetAside(mail, err.Error())
	default:
		s.metrics.failed.Inc()
		s.notBefore.Store(time.Now().Add(pause).UnixNano())
		log.Debug().Err(err).Msg("replay failed")
		s.disk.Return(mail)
		return
	}
	if err != nil {
		log.Error().Err(err).Msg("the maildir could not be brought up to date: the mail will be published again")
	}
}
