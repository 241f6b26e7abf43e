package amqp

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/rig"
)

// BenchmarkPublish compares the publisher with a bare one of the library (confirms, mandatory, one connection, as many channels,
// and a window of the same size), mails of 10 KiB into a quorum queue. Only the ratio means something.
func BenchmarkPublish(b *testing.B) {
	broker := rig.SharedBroker(b)
	declared := run(b, settings(broker.URL())) // by its first connection
	declared.waitReady(testPatience)
	declared.stop()
	for _, inFlight := range []int{20, 64, 256} {
		b.Run(fmt.Sprintf("bare/%d", inFlight), func(b *testing.B) { benchmark(b, inFlight, bare(b, broker.URL())) })
		b.Run(fmt.Sprintf("ours/%d", inFlight), func(b *testing.B) {
			p := run(b, settings(broker.URL()))
			p.waitReady(testPatience)
			benchmark(b, inFlight, func(m amqp091.Publishing) error { return p.Publish(context.Background(), m) })
		})
	}
}

// benchmark publishes b.N messages from as many goroutines as may be in flight.
func benchmark(b *testing.B, inFlight int, publish func(amqp091.Publishing) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	for range inFlight {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := publish(message(strconv.FormatInt(n, 10), 10<<10)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
}

// cpu returns the processor time of this process.
func cpu() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// bare returns a publish function over the bare library: callers take turns on the channels and wait for their own confirm.
func bare(b *testing.B, url string) func(amqp091.Publishing) error {
	b.Helper()
	conn, err := amqp091.Dial(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	type lane struct {
		sync.Mutex
		*amqp091.Channel
	}
	var channels []*lane
	for range lanes {
		ch, err := conn.Channel()
		if err == nil {
			err = ch.Confirm(false)
		}
		if err != nil {
			b.Fatal(err)
		}
		channels = append(channels, &lane{Channel: ch})
	}
	var turn atomic.Uint64
	return func(m amqp091.Publishing) error {
		ch := channels[turn.Add(1)%lanes]
		ch.Lock()
		confirm, err := ch.PublishWithDeferredConfirm("spam", "spam.mails", true, false, m)
		ch.Unlock()
		if err != nil {
			return err
		}
		if !confirm.Wait() {
			return amqp091.ErrClosed
		}
		return nil
	}
}
