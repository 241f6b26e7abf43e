package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/auth"
	"spamtraps.internal/imap-collector/internal/collector"
	"spamtraps.internal/imap-collector/internal/state"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/rig"
	"spamtraps.internal/libs/secret"
)

// Figures of the benchmarks.
const (
	benchRounds = 5
	benchMails  = 20_000
	benchSize   = 10 << 10
	benchWindow = 256
)

// BenchmarkChain prints what the collector reaches of the limit that its two ends set on one machine, 1 / (1/source + 1/publisher): source is a bare go-imap client
// that fetches bodies, pipelined, and throws them away; publisher is bare amqp091, confirmed and mandatory, a window in flight. The chain beside that
// searches, hashes, marks each mail \Seen after its confirm, and checks each answer. Rounds are interleaved; only the shares mean something.
func BenchmarkChain(b *testing.B) {
	s := newStage(b)
	for b.Loop() {
		s.measure("one mailbox", 1, benchMails)
		s.measure("200 mailboxes", 200, benchMails/200)
	}
}

// stage is the two ends.
type stage struct {
	b       *testing.B
	broker  *rig.Broker
	dovecot *rig.Dovecot
	imap    string // Dovecot's address, without a proxy before it
	amqp    string
}

func newStage(b *testing.B) *stage {
	b.Helper()
	s := &stage{b: b, broker: rig.OwnBroker(b), dovecot: rig.OwnDovecot(b, rig.WithEnv("DOVECOT_CLEARTEXT=yes"))}
	s.imap = net.JoinHostPort(rig.Docker(b, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", s.dovecot.Name), "143")
	s.amqp = s.broker.URLAt(s.broker.Address())
	return s
}

func (s *stage) measure(what string, mailboxes, each int) {
	s.b.Helper()
	users := make([]string, mailboxes)
	body := []byte("Subject: bench\r\n\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", benchSize/80))[:benchSize]
	for i := range users {
		users[i] = s.dovecot.User(fmt.Sprintf("bench-%d", i))
		s.dovecot.Import(users[i], "INBOX", each, func(int) []byte { return body })
	}
	mails := mailboxes * each
	var source, publisher, chain, share, cpu []float64
	for range benchRounds {
		for _, user := range users {
			s.dovecot.Do(user, "SELECT INBOX", `UID STORE 1:* -FLAGS.SILENT (\Seen)`)
		}
		source = append(source, float64(mails)/s.source(users).Seconds())
		publisher = append(publisher, s.publish(mails))
		before := ownCPU(s.b)
		chain = append(chain, float64(mails)/s.chain(users, mails).Seconds())
		cpu = append(cpu, (ownCPU(s.b)-before).Seconds()/float64(mails)*1e6)
		last := len(chain) - 1
		share = append(share, chain[last]*(1/source[last]+1/publisher[last]))
	}
	fmt.Printf("\nIMAP to confirmed, %s, %d mails of %d bytes, %d rounds, median (range)\n", what, mails, benchSize, benchRounds)
	benchRow("bare pipelined fetch, mails/s", source, "%.0f")
	benchRow("bare publisher, mails/s", publisher, "%.0f")
	benchRow("collector, mails/s", chain, "%.0f")
	benchRow("collector, CPU µs a mail", cpu, "%.0f")
	benchRow("share of the limit", share, "%.2f")
}

// source fetches everything with nothing but go-imap, three commands in flight, several mailboxes side by side as the collector does.
func (s *stage) source(users []string) time.Duration {
	s.b.Helper()
	from := time.Now()
	turns, done := make(chan struct{}, 16), make(chan error)
	for _, user := range users {
		go func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			done <- s.fetch(user)
		}()
	}
	for range users {
		if err := <-done; err != nil {
			s.b.Fatal(err)
		}
	}
	return time.Since(from)
}

func (s *stage) fetch(user string) error {
	client, err := imapclient.DialInsecure(s.imap, nil)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if err := client.Login(user, s.dovecot.Password).Wait(); err != nil {
		return err
	}
	box, err := client.Select("INBOX", nil).Wait()
	if err != nil {
		return err
	}
	const batch, depth = 64, 3
	// Each command is read by a goroutine of its own, because Dovecot mixes the answers of commands in flight.
	var flying []chan error
	finish := func() error {
		err := <-flying[0]
		flying = flying[1:]
		return err
	}
	for first := uint32(1); first <= box.NumMessages; first += batch {
		set := imap.UIDSet{{Start: imap.UID(first), Stop: imap.UID(min(first+batch-1, box.NumMessages))}}
		command := client.Fetch(set, &imap.FetchOptions{
			UID: true, Flags: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}},
		})
		done := make(chan error, 1)
		go func() { done <- discard(command) }()
		flying = append(flying, done)
		if len(flying) == depth {
			if err := finish(); err != nil {
				return err
			}
		}
	}
	for len(flying) > 0 {
		if err := finish(); err != nil {
			return err
		}
	}
	return nil
}

func discard(command *imapclient.FetchCommand) error {
	for message := command.Next(); message != nil; message = command.Next() {
		for item := message.Next(); item != nil; item = message.Next() {
			if body, ok := item.(imapclient.FetchItemDataBodySection); ok {
				if _, err := io.Copy(io.Discard, body.Literal); err != nil {
					return err
				}
			}
		}
	}
	return command.Close()
}

// publish publishes with nothing but amqp091, and returns mails a second.
func (s *stage) publish(mails int) float64 {
	s.b.Helper()
	conn, err := amqp091.Dial(s.amqp)
	if err != nil {
		s.b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err != nil {
		s.b.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		s.b.Fatal(err)
	}
	body := make([]byte, benchSize)
	pending, done := make(chan *amqp091.DeferredConfirmation, benchWindow), make(chan struct{})
	from := time.Now()
	go func() {
		defer close(done)
		for range mails {
			if ok, err := (<-pending).WaitContext(s.b.Context()); err != nil || !ok {
				s.b.Errorf("a bare publish was not confirmed: %v", err)
			}
		}
	}()
	for range mails {
		confirm, err := channel.PublishWithDeferredConfirmWithContext(s.b.Context(), "spam", "spam.mails", true, false,
			amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: body})
		if err != nil {
			s.b.Fatal(err)
		}
		pending <- confirm
	}
	<-done
	took := time.Since(from)
	s.purge(channel, mails)
	return float64(mails) / took.Seconds()
}

// purge empties the queue, and checks how much was in it.
func (s *stage) purge(channel *amqp091.Channel, want int) {
	s.b.Helper()
	got := 0
	rig.Eventually(s.b, time.Minute, "the queue has all", func() bool { // it counts a confirmed message a moment later
		n, err := channel.QueuePurge("spam.mails", false)
		if err != nil {
			s.b.Fatal(err)
		}
		got += n
		return got >= want
	})
	if got != want {
		s.b.Errorf("%d messages in the queue, want %d", got, want)
	}
}

func (s *stage) chain(users []string, mails int) time.Duration {
	s.b.Helper()
	cfg := amqp.Defaults()
	cfg.URL = secret.New(s.amqp)
	cfg.Validate(func(name, problem string) { s.b.Fatalf("%s %s", name, problem) })
	log, reg := zerolog.New(io.Discard).Level(zerolog.WarnLevel), prometheus.NewRegistry()
	publisher := amqp.NewPublisher(cfg, log, reg)
	ctx, cancel := context.WithCancel(s.b.Context())
	ended := make(chan error, 1)
	go func() { ended <- publisher.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			s.b.Error(err)
		}
	}()
	rig.Eventually(s.b, 30*time.Second, "the publisher is ready", func() bool { return publisher.Ready() == nil })
	store, err := state.Open("", log)
	if err != nil {
		s.b.Fatal(err)
	}
	host, _, _ := net.SplitHostPort(s.imap)
	accounts := make([]account.Account, len(users))
	for i, user := range users {
		accounts[i] = account.Account{
			Name: user, ID: user, Host: host, Port: 143, Username: user, TLS: account.TLSNone, Login: auth.NewPassword(user, secret.New(s.dovecot.Password)),
			Folders: []string{"INBOX"}, Fetch: account.FetchUnseen, After: account.After{Kind: account.AfterSeen},
			PollInterval: time.Minute, MaxMessageBytes: 16 << 20, Enabled: true,
		}
	}
	c := collector.New(collector.Config{Window: benchWindow, LoginRate: 1e6, Memory: 128 << 20}, collector.Identity{App: "imap-collector/bench"}, accounts, publisher, store, log, reg)
	from := time.Now()
	results, err := c.Once(ctx)
	took := time.Since(from)
	if err != nil {
		s.b.Fatal(err)
	}
	published := 0
	for _, r := range results {
		if r.Err != nil {
			s.b.Errorf("%s: %v", r.Name, r.Err)
		}
		published += r.Published
	}
	if published != mails {
		s.b.Errorf("%d mails were published, want %d", published, mails)
	}
	conn, err := amqp091.Dial(s.amqp)
	if err != nil {
		s.b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err != nil {
		s.b.Fatal(err)
	}
	s.purge(channel, mails)
	return took
}

// ownCPU returns the processor time of this process.
func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchRow(what string, values []float64, format string) {
	sorted := slices.Sorted(slices.Values(values))
	fmt.Printf("  %-32s "+format+" ("+format+" to "+format+")\n", what, sorted[len(sorted)/2], sorted[0], sorted[len(sorted)-1])
}
