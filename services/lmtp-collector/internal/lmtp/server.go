// Package lmtp takes mail by LMTP (RFC 2033), for anybody or for given domains, and answers 250 for a mail only after the
// Taker said who has it. go-smtp speaks the protocol; package wire guards the connection under it.
package lmtp

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/lmtp-collector/internal/memory"
	"spamtraps.internal/lmtp-collector/internal/spool"
)

// Taker is who a mail is handed to; package spool has one. Both methods are safe for concurrent use.
type Taker interface {
	// Take tells who has the mail for good now. After any error nobody may have it, so the sender must keep it. It blocks until
	// the outcome is known; when ctx ends, it must be soon.
	Take(ctx context.Context, m amqp091.Publishing) (spool.Held, error)
	// Ready returns nil when a Take now would be tried, else why not. It is asked before each mail and must be cheap.
	Ready() error
}

// Identity is what each mail is marked with.
type Identity struct {
	App       string // program/version
	Collector string // program
	Sensor    string // name of the installation
}

// Server takes mail and hands it to a Taker. It keeps the promise that the whole service rests on: a recipient is answered
// 250 only after Take said who has the mail; in every other case the MTA is told to keep it, and never that it
// should give up, but for the few replies in reply.go. What is held in memory is bounded by Config.Memory.
type Server struct {
	cfg         Config
	identity    Identity
	taker       Taker
	domains     domains
	gateway     gatewayWatch
	peers       peerWatch
	memory      *memory.Budget
	log         zerolog.Logger
	metrics     metrics
	doorMetrics doorMetrics
	door        atomic.Pointer[door] // nil while it does not serve
}

// NewServer returns a server that is not listening yet. Its families of metrics begin with spamtraps_lmtp_.
func NewServer(cfg Config, identity Identity, taker Taker, log zerolog.Logger, reg prometheus.Registerer) *Server {
	budget := memory.NewBudget(cfg.Memory, cfg.MaxConnections, cfg.MaxMessageBytes)
	registerBudget(reg, budget, cfg.Memory)
	return &Server{
		cfg:         cfg,
		identity:    identity,
		taker:       taker,
		domains:     newDomains(cfg.Domains),
		gateway:     gatewayWatch{log: log},
		memory:      budget,
		log:         log,
		metrics:     newMetrics(reg),
		doorMetrics: newDoorMetrics(reg),
	}
}

// registerBudget shows how much of the memory is in use.
func registerBudget(reg prometheus.Registerer, budget *memory.Budget, limit int64) {
	auto := promauto.With(reg)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "spamtraps_lmtp_memory_bytes", Help: "Bytes of mail in memory, beside the little that each connection has for itself.",
	}, func() float64 { return float64(budget.Pooled()) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "spamtraps_lmtp_memory_limit_bytes", Help: "The most bytes of mail that new mail may have in memory: LMTP_MEMORY, less a quarter for mail that waited, when there is a maildir.",
	}, func() float64 { return float64(limit) })
}

// Serve takes connections from listener until ctx ends, and closes it. When ctx ends, connections that wait for a command are
// told 421 and closed at once; a mail that is being sent may be finished within grace, and one that is being published
// is waited for as long. Then Serve returns nil. It stops in the same way, and returns an error, when the listener fails. It is
// to be called once.
func (s *Server) Serve(ctx context.Context, listener net.Listener, grace time.Duration) error {
	publishing, giveUp := context.WithCancel(context.WithoutCancel(ctx)) // what is in flight outlives ctx
	defer giveUp()
	door := newDoor(listener, s.cfg, s.log, s.doorMetrics)
	s.door.Store(door)
	defer s.door.Store(nil)
	server := s.protocol(publishing)

	var failure error
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		failure = server.Serve(door)
	}()
	s.log.Info().Stringer("addr", listener.Addr()).Msg("listening for mail")
	select {
	case <-closed:
	case <-ctx.Done():
	}

	defer time.AfterFunc(grace, giveUp).Stop()
	door.close(time.Now().Add(grace))
	<-closed
	_ = server.Shutdown(context.WithoutCancel(ctx)) // waits for the connections; its error is that the listener was closed
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("lmtp: accept connections: %w", failure)
}

// Health tells for /readyz whether connections are taken.
func (s *Server) Health() (ok bool, text string) {
	door := s.door.Load()
	if door == nil {
		return false, "lmtp: not listening"
	}
	return true, fmt.Sprintf("lmtp: listening on %s, %d connections", door.Addr(), door.count())
}

// greetingName stands for our name in the greeting. The real one may say what this host is for.
const greetingName = "localhost"

// protocol sets go-smtp up. It gets no limit that wire or session keeps: it never sees a mail, and wire caps each line.
func (s *Server) protocol(publishing context.Context) *smtp.Server {
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return s.newSession(publishing, c), nil
	}))
	server.LMTP = true
	server.Domain = greetingName
	server.EnableSMTPUTF8 = true // without it a mail with such an address is answered 504, and lost
	server.MaxRecipients = s.cfg.MaxRecipients
	server.MaxLineLength = 0
	server.ErrorLog = libraryLog{s.log}
	return server
}

// libraryLog takes go-smtp's complaints: panics and a listener without file descriptors are ours to mend, the rest is about a
// peer.
type libraryLog struct{ log zerolog.Logger }

// Printf logs one complaint.
func (l libraryLog) Printf(format string, args ...any) {
	level := zerolog.DebugLevel
	if strings.HasPrefix(format, "panic") || strings.HasPrefix(format, "accept error") {
		level = zerolog.ErrorLevel
	}
	l.log.WithLevel(level).Str("complaint", fmt.Sprintf(format, args...)).Msg("lmtp library")
}

// Println logs one complaint.
func (l libraryLog) Println(args ...any) { l.Printf("%s", fmt.Sprint(args...)) }
