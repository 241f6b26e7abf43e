package spool_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
	"spamtraps.internal/lmtp-collector/internal/maildir"
	"spamtraps.internal/lmtp-collector/internal/spool"
)

// broker is a Publisher that does as it is told, and remembers what it has confirmed.
type broker struct {
	mu       sync.Mutex
	publish  func(context.Context) error // nil: confirms everything
	received []string
}

func (b *broker) Ready() error { return nil }

func (b *broker) Publish(ctx context.Context, m amqp091.Publishing) error {
	b.mu.Lock()
	publish := b.publish
	b.mu.Unlock()
	if publish != nil {
		if err := publish(ctx); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received = append(b.received, m.MessageId)
	return nil
}

// heals makes it confirm everything from now on.
func (b *broker) heals() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publish = nil
}

// silent is a broker that never answers.
func silent(ctx context.Context) error {
	<-ctx.Done()
	return &amqp.Error{Reason: amqp.ReasonGaveUp, Err: ctx.Err()}
}

func mail(t *testing.T, text string) amqp091.Publishing {
	t.Helper()
	sum := sha256.Sum256([]byte(text))
	digest := hex.EncodeToString(sum[:])
	e := &envelope.Envelope{
		MessageID: envelope.LMTPMessageID("", digest, "a@x.example", []string{"b@y.example"}), MailID: envelope.MailID("", digest),
		App: "lmtp-collector/test", Collector: "lmtp-collector", Sensor: "sensor-1", SHA256: digest, Size: int64(len(text)),
		ReceivedAt: time.Now(), LMTP: &envelope.LMTP{MailFrom: "a@x.example", RcptTo: []string{"b@y.example"}},
	}
	message, err := e.Publishing([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// over returns a Spool over b and, if that is wanted, a maildir.
func over(t *testing.T, b *broker, withDisk bool) *spool.Spool {
	t.Helper()
	reg := prometheus.NewRegistry()
	var disk *maildir.Maildir
	if withDisk {
		cfg := maildir.Defaults()
		cfg.Path, cfg.Keep, cfg.MinFree = filepath.Join(t.TempDir(), "maildir"), maildir.KeepUndelivered, 0
		var err error
		if disk, err = maildir.Open(cfg, zerolog.Nop(), reg); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- disk.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	return spool.New(b, disk, spool.Share{Mails: 2, Bytes: 100}, zerolog.Nop(), reg)
}

// Postfix waits 600 s for its reply, and then sends the mail again: ours must come long before.
func TestBrokerThatNeverAnswers(t *testing.T) {
	for _, c := range []struct {
		name     string
		withDisk bool
		within   time.Duration
		held     spool.Held
	}{
		{"without a maildir", false, 5 * time.Minute, spool.Nowhere},
		{"with a maildir", true, time.Minute, spool.Disk},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := over(t, &broker{publish: silent}, c.withDisk)
				began := time.Now()
				held, err := s.Take(t.Context(), mail(t, "a mail\r\n"))
				if held != c.held || (err == nil) != c.withDisk {
					t.Errorf("held %v, %v", held, err)
				}
				if took := time.Since(began); took != c.within {
					t.Errorf("it took %s, want %s", took, c.within)
				}
			})
		})
	}
}

// A mail that the broker never takes is set aside with a maildir; without one whoever offered it keeps it.
func TestMailThatIsRefusedForEver(t *testing.T) {
	refuses := func(context.Context) error {
		return &amqp.Error{Permanent: true, Reason: amqp.ReasonTooLarge, Err: errors.New("too large")}
	}
	for withDisk, want := range map[bool]spool.Held{true: spool.SetAside, false: spool.Nowhere} {
		s := over(t, &broker{publish: refuses}, withDisk)
		if held, err := s.Take(t.Context(), mail(t, "a mail\r\n")); held != want || (err == nil) != withDisk {
			t.Errorf("with a maildir %v: held %v, %v", withDisk, held, err)
		}
	}
}

// What waits goes to the broker when it is well again, each mail once, whatever its size against the share of memory.
func TestReplay(t *testing.T) {
	b := &broker{publish: silent}
	s := over(t, b, true)
	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	want := make(map[string]bool)
	for _, text := range []string{"one\r\n", "two, which is longer than the whole share of memory: " + string(make([]byte, 200)), "three\r\n"} {
		m := mail(t, text)
		want[m.MessageId] = true
		if held, err := s.Take(given, m); held != spool.Disk || err != nil {
			t.Fatalf("held %v, %v", held, err)
		}
	}
	b.heals()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	rig.Eventually(t, 30*time.Second, "nothing waits", func() bool {
		_, text := s.Health()
		return text == "spool: nothing waiting"
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range b.received {
		if !want[id] {
			t.Errorf("%s came twice, or is not ours", id)
		}
		delete(want, id)
	}
	if len(want) > 0 {
		t.Errorf("%d mails are missing", len(want))
	}
}
