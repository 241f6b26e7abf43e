// Package spool sees to it that a mail which was taken is always in safe hands: the broker's, or the maildir's as long as the
// broker cannot have it. What lies in the maildir is handed to the broker when that is back, oldest first, beside new mail.
package spool

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// Publisher is the way to the broker; libs/amqp has one. Both methods are safe for concurrent use.
type Publisher interface {
	// Publish returns nil only when the broker has the mail for good. After any error it may or may not have it. It blocks
	// until the outcome is known, or until ctx ends, and fails at once while nothing can be published.
	Publish(ctx context.Context, m amqp091.Publishing) error
	// Ready returns nil when a Publish now would be tried, else why not. It is cheap.
	Ready() error
}

// Held tells who has a mail that was taken.
type Held int

// Who has a mail. The zero value is nobody: whoever offered it must keep it.
const (
	Nowhere  Held = iota
	Broker        // it is confirmed and routed
	Disk          // it lies in the maildir, fsynced, and waits for the broker
	SetAside      // it lies in the maildir, fsynced; the broker takes no such mail, so somebody must look at it
)

// How long the broker may take for one mail, the wait for room in the window included. Postfix waits 600 s for the reply
// to a mail; ours must come first, or the mail is sent again though it was published. With a maildir there is no need to
// let anybody wait that long.
const (
	patience         = 5 * time.Minute
	patienceWithDisk = time.Minute
)

// Spool hands mail to the broker, and to the maildir when the broker cannot have it now.
//
// The promise: Take returns no error only after the broker has confirmed and routed the mail, or the maildir has it with
// all that is needed to publish it later, fsynced. A mail leaves the maildir only after the broker has confirmed and routed it, or
// is set aside there. So a crash loses nothing, and makes at most as many duplicates as mails were in flight, each with the
// message id of the first.
//
// All methods may be called from any number of goroutines, Run once.
type Spool struct {
	publisher Publisher
	disk      *maildir.Maildir // nil: there is none
	share     chan struct{}    // a place for each mail of the maildir that is on its way
	memory    *semaphore.Weighted
	bytes     int64 // of memory
	log       zerolog.Logger
	metrics   metrics

	notBefore atomic.Int64 // when the next mail of the maildir may be tried, in Unix nanoseconds
	replayed  atomic.Int64 // mails since the maildir was empty
}

type metrics struct {
	replayed prometheus.Counter
	failed   prometheus.Counter
}

// Share is how much of the maildir's mail may be on its way at once: less than the publisher's window, or new mail would have
// to wait for old. A mail of more bytes goes alone.
type Share struct {
	Mails int
	Bytes int64
}

// New returns a Spool over a publisher, and over a maildir unless disk is nil.
func New(publisher Publisher, disk *maildir.Maildir, old Share, log zerolog.Logger, reg prometheus.Registerer) *Spool {
	auto := promauto.With(reg)
	return &Spool{
		publisher: publisher,
		disk:      disk,
		share:     make(chan struct{}, max(1, old.Mails)),
		memory:    semaphore.NewWeighted(max(1, old.Bytes)),
		bytes:     max(1, old.Bytes),
		log:       log,
		metrics: metrics{
			replayed: auto.NewCounter(prometheus.CounterOpts{
				Name: "spamtraps_spool_replayed_total", Help: "Mails from the maildir that the broker has confirmed.",
			}),
			failed: auto.NewCounter(prometheus.CounterOpts{
				Name: "spamtraps_spool_replay_failures_total", Help: "Tries to publish a mail from the maildir that failed; each is tried again.",
			}),
		},
	}
}

// Ready returns nil when a mail would be taken now, else why not: what the maildir says if there is one, which may be a
// *maildir.Error, else what the publisher says. It is cheap.
func (s *Spool) Ready() error {
	err := s.publisher.Ready()
	if err == nil || s.disk == nil {
		return err
	}
	return s.disk.Ready()
}

// Take hands one mail on and tells who has it. It blocks until that is known, for five minutes at most, or one when there is
// a maildir to fall back on; ctx ends the wait for the broker earlier. An error means that nobody has it for sure: a
// *maildir.Error is among its causes when there is a maildir, an *amqp.Error always.
func (s *Spool) Take(ctx context.Context, m amqp091.Publishing) (Held, error) {
	err := s.publish(ctx, m)
	switch {
	case err == nil:
		s.keep(m)
		return Broker, nil
	case s.disk == nil:
		return Nowhere, err
	case isPermanent(err):
		return s.stored(SetAside, err, s.disk.StoreAside(m, err.Error()))
	}
	return s.stored(Disk, err, s.disk.Store(m))
}

func (s *Spool) publish(ctx context.Context, m amqp091.Publishing) error {
	limit := patience
	if s.disk != nil {
		limit = patienceWithDisk
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return s.publisher.Publish(ctx, m)
}

// keep leaves a copy of a mail that is confirmed, if the maildir is one that keeps them. That it cannot is no reason to have the mail
// sent again.
func (s *Spool) keep(m amqp091.Publishing) {
	if s.disk == nil {
		return
	}
	if err := s.disk.Keep(m); err != nil {
		s.log.Warn().Err(err).Str("message_id", m.MessageId).Msg("a copy of a confirmed mail could not be kept")
	}
}

func (s *Spool) stored(where Held, published, stored error) (Held, error) {
	if stored != nil {
		return Nowhere, fmt.Errorf("%w; %w", published, stored)
	}
	return where, nil
}

// isPermanent tells whether the broker takes this mail never.
func isPermanent(err error) bool {
	failure, ok := errors.AsType[*amqp.Error](err)
	return ok && failure.Permanent
}
