// Package collector takes the mail out of mailboxes and hands it to the broker: a mail is marked, deleted or moved in its mailbox only
// after the broker has confirmed it. Each mailbox has goroutines of its own, and its troubles are nobody else's.
package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/session"
	"spamtraps.internal/imap-collector/internal/state"
)

// Publisher is the way to the broker; libs/amqp has one. Its methods are safe for concurrent use.
type Publisher interface {
	// Publish returns nil only when the broker has the mail for good. After any error it may or may not have it. It blocks until the
	// outcome is known, or until ctx ends, and fails at once while nothing can be published.
	Publish(ctx context.Context, m amqp091.Publishing) error
	// Ready returns nil when a Publish now would be tried, else why not. It is cheap.
	Ready() error
	// MaxMessageBytes is the largest mail that the broker is known to take.
	MaxMessageBytes() int64
}

// Identity is what each mail is marked with.
type Identity struct {
	App       string // program/version
	Collector string // program
	Sensor    string // name of the installation
}

// Config bounds what all mailboxes together may use. What is left zero has a default, but for MaxPerHost.
type Config struct {
	Memory     int64         // bytes of mail held at once (IMAP_MEMORY)
	Window     int           // mails that are on their way to the broker, or confirmed and not yet marked: as many may come twice after a crash
	MaxPerHost int           // connections to one host at once (IMAP_MAX_PER_HOST); 0: any number
	LoginRate  float64       // logins to one host in a second
	Parallel   int           // mailboxes that Once works on at once
	StaleAfter time.Duration // a mailbox that was not looked at for so long is named by Health (IMAP_STALE_AFTER)
	Timeout    time.Duration // how long a server may be silent while it owes an answer (IMAP_TIMEOUT); 0: a minute
	StopGrace  time.Duration // what is on its way gets this when Run is stopped

	BrokerPatience time.Duration // how long Once waits for a broker that takes nothing

	Dialer *session.Dialer // opens the connections; nil: one of the network
}

func (c Config) withDefaults() Config {
	c.Memory = cmp.Or(c.Memory, 64<<20)
	c.Window = cmp.Or(c.Window, 512)
	c.LoginRate = cmp.Or(c.LoginRate, 20)
	c.Parallel = cmp.Or(c.Parallel, 16)
	c.StaleAfter = cmp.Or(c.StaleAfter, 30*time.Minute)
	c.StopGrace = cmp.Or(c.StopGrace, 8*time.Second)
	c.BrokerPatience = cmp.Or(c.BrokerPatience, 5*time.Minute)
	return c
}

// Collector works on any number of mailboxes.
//
// The promise: a mail is marked, deleted or moved only after the broker has confirmed and routed it; a mail counts as fetched only when all of
// its announced bytes are here and the server has said so in a clean answer to a command that asked for it. Everything else leaves the mail as it
// is, to be fetched again. So a crash loses nothing, and at most Config.Window mails come twice, each with the message id of the first time.
type Collector struct {
	shared    *shared
	mailboxes []*mailbox
}

// shared is what all mailboxes use together.
type shared struct {
	cfg       Config
	identity  Identity
	publisher Publisher
	store     *state.Store
	dialer    *session.Dialer
	gate      *gate
	memory    *room        // bytes of mail
	window    *room        // mails that are published and not yet marked
	busy      atomic.Int64 // mailboxes that fetch
	hosts     *hosts
	log       zerolog.Logger
	families  *families
	jitter    func(time.Duration) time.Duration
	once      bool
}

// New returns a Collector that does nothing before Run or Once. It registers its metrics, spamtraps_imap_…, with reg. store may be one that
// keeps nothing beyond the process.
func New(cfg Config, identity Identity, accounts []account.Account, publisher Publisher, store *state.Store, log zerolog.Logger,
	reg prometheus.Registerer,
) *Collector {
	cfg = cfg.withDefaults()
	dialer := cfg.Dialer
	if dialer == nil {
		_, version, _ := strings.Cut(identity.App, "/")
		dialer = &session.Dialer{Program: identity.Collector, Version: version, Timeout: cfg.Timeout}
	}
	c := &Collector{shared: &shared{
		cfg: cfg, identity: identity, publisher: publisher, store: store, dialer: dialer, log: log, jitter: fullJitter,
		gate: newGate(publisher), memory: newRoom(cfg.Memory), window: newRoom(int64(cfg.Window)), hosts: &hosts{most: cfg.MaxPerHost, rate: rate.Limit(cfg.LoginRate)},
	}}
	c.shared.families = newFamilies(reg, c)
	for _, a := range accounts {
		c.mailboxes = append(c.mailboxes, c.newMailbox(a))
	}
	return c
}

// Run works on the mailboxes until ctx ends; then what is on its way has Config.StopGrace to be confirmed and marked, and Run returns nil. There is
// no fault of a mailbox that makes it return sooner. The publisher must outlive it.
func (c *Collector) Run(ctx context.Context) error {
	hard, cancel := hardContext(ctx, c.shared.cfg.StopGrace)
	defer cancel()
	var all sync.WaitGroup
	for _, m := range c.mailboxes {
		all.Go(func() { m.run(ctx, hard) })
	}
	all.Wait()
	<-ctx.Done()
	return nil
}

// ErrBroker is why Once gave up: the broker took nothing for Config.BrokerPatience.
var ErrBroker = errors.New("the broker takes nothing")

// Once goes through each mailbox once, several at a time, and returns a Result for each, in the order of the accounts, also when it ends before it is
// done: because ctx ends, or with ErrBroker. Then what is on its way has Config.StopGrace.
func (c *Collector) Once(ctx context.Context) ([]Result, error) {
	c.shared.once = true
	soft, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	hard, cancel := hardContext(soft, c.shared.cfg.StopGrace)
	defer cancel()
	go c.watchBroker(soft, stop)
	turns := make(chan struct{}, c.shared.cfg.Parallel)
	var all sync.WaitGroup
	for _, m := range c.mailboxes {
		all.Go(func() {
			select {
			case turns <- struct{}{}:
				defer func() { <-turns }()
			case <-soft.Done():
			}
			m.once(soft, hard)
		})
	}
	all.Wait()
	results := make([]Result, len(c.mailboxes))
	for i, m := range c.mailboxes {
		results[i] = m.show().Result
	}
	if soft.Err() != nil {
		return results, context.Cause(soft)
	}
	return results, nil
}

// watchBroker gives up when the broker takes nothing for too long.
func (c *Collector) watchBroker(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for since := time.Now(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := c.shared.gate.ready()
		switch {
		case err == nil:
			since = time.Now()
		case time.Since(since) > c.shared.cfg.BrokerPatience:
			stop(fmt.Errorf("%w: %w", ErrBroker, c.shared.publisherSays(err)))
			return
		}
	}
}

// publisherSays returns the publisher's own words, if it has any.
func (s *shared) publisherSays(err error) error {
	if words := s.publisher.Ready(); words != nil {
		return words
	}
	return err
}

// Result is what came of one mailbox.
type Result struct {
	Name      string
	Found     int           // mails that were to be fetched
	Published int           // of those, confirmed by the broker
	Bytes     int64         // of those published
	Oversize  int           // left where they are, because they are too large
	Parked    int           // left where they are, because they could not be fetched several times
	Unmarked  int           // published, but the server did not let us mark, delete or move them
	Took      time.Duration // from the first try to connect
	Err       error         // why the mailbox was not emptied of all that was asked; nil: it was, but for Oversize
}

// Status is what a mailbox is doing, for a display.
type Status struct {
	Result
	Doing Doing
}

// Doing is what a mailbox is doing.
type Doing string

// What a mailbox may be doing.
const (
	DoingNothing    Doing = "waiting"    // not begun, or between two tries
	DoingConnecting Doing = "connecting" // up to the end of the login
	DoingFetching   Doing = "fetching"
	DoingIdling     Doing = "idling" // it waits for new mail
	DoingDone       Doing = "done"
	DoingFailed     Doing = "failed"
)

// Status returns what each mailbox is doing now, in the order of the accounts. It does not block.
func (c *Collector) Status() []Status {
	all := make([]Status, len(c.mailboxes))
	for i, m := range c.mailboxes {
		all[i] = m.show()
	}
	return all
}
