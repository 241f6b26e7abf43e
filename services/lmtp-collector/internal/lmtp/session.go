package lmtp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/lmtp-collector/internal/maildir"
	"spamtraps.internal/lmtp-collector/internal/memory"
	"spamtraps.internal/lmtp-collector/internal/spool"
	"spamtraps.internal/lmtp-collector/internal/wire"
)

const (
	// firstBuffer is how much is set aside for a mail before its bytes are there, whatever size was announced.
	firstBuffer = 64 << 10
	// leastBuffer is how much is set aside for a mail whose size was not announced.
	leastBuffer = 4 << 10
	// roomPatience is how long a DATA waits for memory before it is told to come again. A mail that is under way waits for as
	// long as its transaction may take.
	roomPatience = 10 * time.Second
)

type metrics struct {
	received, receivedBytes   prometheus.Counter
	taken, deferred, rejected *prometheus.CounterVec
	accepted                  prometheus.Counter
	answer                    prometheus.Histogram
}

// Why a mail or a recipient was deferred or rejected: the values of the label reason.
const (
	reasonNotReady   = "not_ready"       // MAIL, while nobody could have taken the mail
	reasonPublish    = "publish"         // the mail was received, and nobody took it
	reasonBroken     = "broken_transfer" // the connection ended within the mail
	reasonMemory     = "memory"          // LMTP_MEMORY is used up
	reasonRecipients = "recipients"      // one recipient; the MTA sends it in its next transaction
	reasonSize       = "size"            // the mail is too large
	reasonDomain     = "domain"          // one recipient, outside LMTP_DOMAINS
)

func newMetrics(reg prometheus.Registerer) metrics {
	auto := promauto.With(reg)
	m := metrics{
		received: auto.NewCounter(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_received_total", Help: "Mails that were received whole.",
		}),
		receivedBytes: auto.NewCounter(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_received_bytes_total", Help: "Bytes of the mails that were received whole.",
		}),
		taken: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_taken_total", Help: "Mails that were answered 250, by who has them: the broker has confirmed them, the maildir has them until it does, or they are set aside there.",
		}, []string{"held"}),
		accepted: auto.NewCounter(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_accepted_total", Help: "Mails that were answered 250. Each must be somewhere: the broker has confirmed it, or the maildir has it.",
		}),
		answer: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "spamtraps_lmtp_answer_seconds", Help: "Time from the end of a mail to its 250.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
		}),
		deferred: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_deferred_total", Help: "Mails that the MTA was told to send again, by reason; recipients, for the reason recipients.",
		}, []string{"reason"}),
		rejected: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_rejected_total", Help: "Mails that were refused for good, by reason; recipients, for the reason domain.",
		}, []string{"reason"}),
	}
	for _, event := range events {
		m.taken.WithLabelValues(event)
	}
	for _, reason := range []string{reasonNotReady, reasonPublish, reasonBroken, reasonMemory, reasonRecipients} {
		m.deferred.WithLabelValues(reason)
	}
	for _, reason := range []string{reasonSize, reasonDomain} {
		m.rejected.WithLabelValues(reason)
	}
	return m
}

// session is one LMTP session, a transaction at a time. go-smtp calls its methods one after the other, because nobody calls
// the server's Close.
type session struct {
	server *Server
	conn   *smtp.Conn
	wire   *wire.Conn
	peer   string // "" on a unix socket
	log    zerolog.Logger
	ctx    context.Context //nolint:containedctx // go-smtp hands none to its sessions; it ends when the server gives up
	room   *memory.Room

	begun  bool // there was a MAIL
	from   string
	origin wire.Origin
	size   int64 // as the client announced it, 0 when it did not
	rcpts  envelope.Recipients
}

func (s *Server) newSession(publishing context.Context, conn *smtp.Conn) *session {
	peer, remote := "", "unix"
	if addr := conn.Conn().RemoteAddr(); addr.Network() != "unix" {
		peer = envelope.CanonicalAddr(addr.String())
		remote = peer
	}
	session := &session{
		server: s,
		conn:   conn,
		wire:   conn.Conn().(*wire.Conn), // the listener has no others
		peer:   peer,
		log:    s.log.With().Str("remote", remote).Logger(),
		ctx:    publishing,
		room:   s.memory.NewRoom(),
	}
	session.wire.BeforeData(session.reserve)
	return session
}

// reserve makes room for a mail of the announced size before the client may send it, or returns the reply.
func (s *session) reserve() (reply string) {
	ctx, cancel := context.WithTimeout(s.ctx, roomPatience)
	defer cancel()
	if s.room.Grow(ctx, s.size) == nil {
		return ""
	}
	s.noMemory(s.size)
	return fmt.Sprintf("%d %d.%d.%d %s", errNoMemory.Code, errNoMemory.EnhancedCode[0], errNoMemory.EnhancedCode[1],
		errNoMemory.EnhancedCode[2], errNoMemory.Message)
}

func (s *session) noMemory(size int64) {
	s.server.metrics.deferred.WithLabelValues(reasonMemory).Inc()
	s.log.Warn().Str("reason", reasonMemory).Str("mail_from", clip(s.from)).Int64("size", size).
		Msg("deferred: too many large mails at once, see LMTP_MEMORY")
}

// Mail begins a transaction, unless the mail could not go anywhere now. The exact address is with wire.
func (s *session) Mail(_ string, opts *smtp.MailOptions) error {
	from := s.wire.Address()
	if s.begun { // go-smtp would go on with the recipients of the one before
		return errOutOfOrder
	}
	if opts.Size > s.server.cfg.MaxMessageBytes {
		return s.tooLarge(from, opts.Size)
	}
	if err := s.server.taker.Ready(); err != nil {
		s.server.metrics.deferred.WithLabelValues(reasonNotReady).Inc()
		s.log.Debug().Err(err).Str("reason", reasonNotReady).Str("mail_from", clip(from)).Msg("deferred") // who cannot says it once, and louder
		return later(err)
	}
	s.begun, s.from, s.origin, s.size = true, from, s.wire.Origin(), opts.Size
	return nil
}

// Rcpt adds a recipient, of any form.
func (s *session) Rcpt(_ string, _ *smtp.RcptOptions) error {
	to := s.wire.Address()
	if !s.server.domains.take(to) {
		s.server.metrics.rejected.WithLabelValues(reasonDomain).Inc()
		s.log.Info().Str("reason", reasonDomain).Str("rcpt_to", clip(to)).Msg("rejected")
		return errNotHere
	}
	if !s.rcpts.Add(to) {
		s.server.metrics.deferred.WithLabelValues(reasonRecipients).Inc()
		return errTooMany
	}
	return nil
}

// Data takes the mail. What it returns is the reply to every recipient, since one message carries them all; go-smtp's LMTPData, which could
// tell recipients apart, costs a goroutine for each mail. The mail is with wire; the reader has an empty one, which go-smtp itself reads
// to its end. After a panic nobody knows what became of the mail, so the MTA has to send it again, in another session.
func (s *session) Data(io.Reader) (reply error) {
	defer s.room.Free()
	defer func() {
		if reply == nil {
			s.server.metrics.accepted.Inc()
		}
	}()
	defer func() {
		if cause := recover(); cause != nil {
			s.log.Error().Any("cause", cause).Str("stack", string(debug.Stack())).Msg("panic: the mail is deferred and the session ended")
			s.wire.Stop(time.Now())
			reply = errTryLater
		}
	}()
	body, reply := s.receive()
	if reply != nil {
		return reply
	}
	mail := s.envelope(body)
	log := s.log.With().Str("message_id", mail.MessageID).Str("mail_id", mail.MailID).Logger()
	s.server.metrics.received.Inc()
	s.server.metrics.receivedBytes.Add(float64(len(body)))
	log.Debug().Msg("received")
	s.server.gateway.see(s.origin.Addr)

	message, err := mail.Publishing(body)
	held := spool.Nowhere
	if err == nil {
		held, err = s.server.taker.Take(s.ctx, message)
	}
	if err != nil {
		s.server.metrics.deferred.WithLabelValues(reasonPublish).Inc()
		log.WithLevel(severity(err)).Err(err).Str("reason", reasonPublish).Int("size", len(body)).Msg("deferred")
		return later(err)
	}
	s.server.peers.see(s.peer, len(body))
	s.server.metrics.taken.WithLabelValues(events[held]).Inc()
	s.server.metrics.answer.Observe(time.Since(mail.ReceivedAt).Seconds())
	log.Info().Int("size", len(body)).Int("recipients", len(mail.LMTP.RcptTo)).Str("mail_from", clip(s.from)).
		TimeDiff("took", time.Now(), mail.ReceivedAt).Msg(events[held])
	return nil
}

// events is what the log says of a mail that was taken, and the value of the label held.
var events = map[spool.Held]string{spool.Broker: "confirmed", spool.Disk: "spooled", spool.SetAside: "set_aside"}

// later is the reply to a mail that nobody can take now: whether for want of room or not is all that the MTA gets to know.
func later(err error) error {
	if full, ok := errors.AsType[*maildir.Error](err); ok && full.Full {
		return errNoRoom
	}
	return errTryLater
}

// severity is how loud a failure to publish is logged: what passes by itself is said once, and loud, by the publisher; a mail
// that can never pass comes again and again until somebody changes something.
func severity(err error) zerolog.Level {
	var failure *amqp.Error
	if errors.As(err, &failure) && !failure.Permanent {
		return zerolog.WarnLevel
	}
	return zerolog.ErrorLevel
}

// receive returns the whole mail, or the reply when there is none. Of one that is too large, or that there is no memory for,
// nothing is kept; the rest of it is read over. While it waits for memory nothing is read.
func (s *session) receive() ([]byte, error) {
	limit := s.server.cfg.MaxMessageBytes
	var size int64
	var body []byte
	var full bool
	err := s.wire.ReadMail(func(text []byte) {
		size += int64(len(text))
		if !full && size <= limit {
			body, full = s.grow(body, size)
		}
		if full || size > limit {
			body = nil
			s.room.Free()
			return
		}
		body = append(body, text...)
	})
	switch {
	case err != nil:
		s.server.metrics.deferred.WithLabelValues(reasonBroken).Inc()
		s.log.Info().Err(err).Str("reason", reasonBroken).Str("mail_from", clip(s.from)).Int64("read", size).Msg("deferred")
		return nil, errBroken
	case size > limit:
		return nil, s.tooLarge(s.from, size)
	case full:
		s.noMemory(size)
		return nil, errNoMemory
	}
	return body, nil
}

// grow returns the body with room for size bytes, or tells that there is no memory: first for a small mail, then for the size
// that was announced, then for twice as much as there is.
func (s *session) grow(body []byte, size int64) (grown []byte, full bool) {
	if size <= int64(cap(body)) {
		return body, false
	}
	next := min(max(2*int64(cap(body)), size), s.server.cfg.MaxMessageBytes)
	switch {
	case cap(body) == 0 && s.size > 0:
		next = max(size, min(s.size, firstBuffer))
	case cap(body) == 0:
		next = max(size, leastBuffer)
	case size <= s.size:
		next = s.size
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.server.cfg.TransactionTimeout)
	defer cancel()
	if err := s.room.Grow(ctx, next); err != nil {
		return nil, true
	}
	return append(make([]byte, 0, next), body...), false
}

func (s *session) tooLarge(from string, size int64) error {
	s.server.metrics.rejected.WithLabelValues(reasonSize).Inc()
	s.log.Info().Str("reason", reasonSize).Str("mail_from", clip(from)).Int64("size", size).
		Int64("limit", s.server.cfg.MaxMessageBytes).Msg("rejected")
	return errTooLarge
}

// envelope tells everything that is known about the mail. Where no queue id is, the MTA's Received line, which is part of the
// content, is what tells equal mails apart.
func (s *session) envelope(body []byte) *envelope.Envelope {
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	rcpts := s.rcpts.List()
	mail := &envelope.Envelope{
		MessageID:     envelope.LMTPMessageID(s.origin.QueueID, digest, s.from, rcpts),
		App:           s.server.identity.App,
		Sensor:        s.server.identity.Sensor,
		Collector:     s.server.identity.Collector,
		SHA256:        digest,
		ContentHash:   envelope.ContentHash(body, rcpts...),
		Size:          int64(len(body)),
		ReceivedAt:    time.Now(),
		MTAReceivedAt: mtaReceivedAt(body, s.origin.QueueID),
		MailID:        envelope.MailID(s.origin.QueueID, digest),
		LMTP: &envelope.LMTP{
			MailFrom:    s.from,
			RcptTo:      rcpts,
			LHLO:        s.conn.Hostname(),
			Peer:        s.peer,
			ClientPort:  s.origin.Port,
			ClientName:  s.origin.Name,
			ClientHELO:  s.origin.HELO,
			ClientProto: s.origin.Proto,
			QueueID:     s.origin.QueueID,
		},
	}
	if s.origin.Addr.IsValid() {
		mail.LMTP.ClientAddr = s.origin.Addr.String()
	}
	return mail
}

// Reset ends the transaction.
func (s *session) Reset() {
	s.begun, s.from, s.origin, s.size = false, "", wire.Origin{}, 0
	s.rcpts.Reset()
	s.room.Free()
}

// Logout ends the session.
func (s *session) Logout() error {
	s.room.Free()
	return nil
}

// clipAt is how much of a text from outside goes into a log line, in bytes.
const clipAt = 200

func clip(text string) string {
	if len(text) <= clipAt {
		return text
	}
	return text[:clipAt] + "…"
}
