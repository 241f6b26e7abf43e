package lmtp_test

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/lmtp-collector/internal/lmtp"
	"spamtraps.internal/lmtp-collector/internal/lmtptest"
	"spamtraps.internal/lmtp-collector/internal/spool"
)

// nowhere is a Taker that takes everything and keeps nothing.
type nowhere struct{}

func (nowhere) Ready() error { return nil }

func (nowhere) Take(context.Context, amqp091.Publishing) (spool.Held, error) {
	return spool.Broker, nil
}

// cpuTime is what this process has used of the processors. Unlike the time that passes, it says something on a shared machine.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkSession is one mail after the other over one session, client included, with nothing behind it.
func BenchmarkSession(b *testing.B) {
	for _, size := range []int{10 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			cfg := lmtp.Defaults()
			cfg.MaxMessageBytes = 16 << 20
			listener, err := lmtp.Listen(b.Context(), "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			server := lmtp.NewServer(cfg, lmtp.Identity{}, nowhere{}, zerolog.Nop(), prometheus.NewRegistry())
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				_ = server.Serve(ctx, listener, 0) // the client would notice
			}()
			defer func() {
				stop()
				<-stopped
			}()
			c, err := lmtptest.Dial("tcp", listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if _, err := c.Ask("LHLO mta.example"); err != nil {
				b.Fatal(err)
			}
			line := []byte("seventy-six characters or so of nothing but text, as a mail has them by line\r\n")
			mail := lmtptest.Stuff(bytes.Repeat(line, size/len(line)))
			b.SetBytes(int64(len(mail)))
			before := cpuTime(b)
			for b.Loop() {
				for _, command := range []string{"MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"} {
					if _, err := c.Ask(command); err != nil {
						b.Fatal(err)
					}
				}
				if err := c.Send(mail); err != nil {
					b.Fatal(err)
				}
				if reply, err := c.Reply(); err != nil || reply[:3] != "250" {
					b.Fatal(reply, err)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}
