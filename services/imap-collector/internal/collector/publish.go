package collector

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/imap-collector/internal/session"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/envelope"
)

// outcome is what became of a mail that was handed to the broker.
type outcome struct {
	uid    uint32
	size   int64
	never  bool // the broker will never take it
	failed bool // it may be tried again
}

// publish hands a mail to the broker, waits for the confirm, and tells the outcome. It gives the mail's memory back, and leaves its place to whoever marks it.
func (p *pass) publish(mail session.Mail, memory int64) {
	m := p.mailbox
	size := int64(len(mail.Body))
	result := outcome{uid: mail.UID, size: size}
	message := p.envelope(&mail)
	log := m.log.With().Str("message_id", message.MessageID).Str("folder", p.folder.name).Uint32("uid", mail.UID).Logger()
	log.Debug().Int64("size", size).Msg("received")
	publishing, err := message.Publishing(mail.Body)
	if err == nil {
		err = p.publishWithin(publishing)
	} else {
		err = &amqp.Error{Permanent: true, Reason: amqp.ReasonInvalid, Err: err}
	}
	m.shared.memory.give(memory)
	failure, known := errors.AsType[*amqp.Error](err)
	switch {
	case err == nil:
		log.Info().Int64("size", size).TimeDiff("took", time.Now(), message.ReceivedAt).Msg("confirmed")
		m.metrics.confirmed.Inc()
		m.metrics.confirmedBytes.Add(float64(size))
		m.confirmedOne()
	case known && failure.Permanent:
		result.never = true
		log.Error().Err(err).Int64("size", size).Str("reason", string(failure.Reason)).Msg("left: the broker never takes this mail")
		m.metrics.left.WithLabelValues(m.account.Name, leftRefused).Inc()
	default:
		result.failed = true
		log.Debug().Err(err).Msg("not published: the mail stays as it is")
	}
	p.outcomes <- result
}

// publishWithin publishes a mail as soon as there is a place in the window, which is left with the mail when that is confirmed.
func (p *pass) publishWithin(message amqp091.Publishing) error {
	shared := p.mailbox.shared
	if err := shared.window.take(p.soft, 1); err != nil {
		return err
	}
	err := shared.gate.publish(p.hard, p.soft.Done(), message)
	if err != nil {
		shared.window.give(1)
	}
	return err
}

// envelope tells everything that is known about a mail.
func (p *pass) envelope(mail *session.Mail) *envelope.Envelope {
	m := p.mailbox
	sum := sha256.Sum256(mail.Body)
	digest := hex.EncodeToString(sum[:])
	return &envelope.Envelope{
		MessageID: envelope.IMAPMessageID(m.account.ID, p.folder.name, p.folder.validity, mail.UID),
		App:       m.shared.identity.App,
		Sensor:    m.shared.identity.Sensor,
		Collector: m.shared.identity.Collector,
		SHA256:    digest,
		// The mailbox's address, where its login is one: whom the mail was for, nothing else tells.
		ContentHash: envelope.ContentHash(mail.Body, m.account.Username),
		Size:        int64(len(mail.Body)),
		ReceivedAt:  time.Now(),
		MailID:      envelope.MailID("", digest),
		IMAP: &envelope.IMAP{
			Mailbox:      m.account.ID,
			Host:         m.account.Host,
			Folder:       p.folder.name,
			Junk:         p.folder.junk,
			UID:          mail.UID,
			UIDValidity:  p.folder.validity,
			Flags:        mail.Flags,
			InternalDate: mail.InternalDate,
		},
	}
}

// hardContext returns a context that ends grace after ctx does.
func hardContext(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	hard, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(grace, func() { cancel(errGrace) })
	})
	return hard, func() {
		stop()
		cancel(context.Canceled)
	}
}

var errGrace = errors.New("told to stop")
