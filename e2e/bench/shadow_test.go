package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/rig"
)

// shadow is a bare publisher that sends the broker one mail for each that an smtp-sink takes, as that takes it.
type shadow struct {
	b         *testing.B
	confirmed atomic.Int64
}

// startShadow starts another smtp-sink in tools, which tells how many mails it has taken, and the publisher that follows it. Both end with the benchmark.
func (s *stage) startShadow(tools *rig.Container, sink string) *shadow {
	s.b.Helper()
	conn, err := amqp091.Dial(s.broker.URLAt(s.broker.Address()))
	if err != nil {
		s.b.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		s.b.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		s.b.Fatal(err)
	}
	cmd := exec.CommandContext(s.b.Context(), "docker", "exec", tools.Name, "smtp-sink", "-c", "-L", "-u", "nobody", sink, "1000")
	counters, err := cmd.StdoutPipe()
	if err != nil {
		s.b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.b.Fatal(err)
	}
	sh := &shadow{b: s.b}
	ended := make(chan struct{})
	s.b.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait() // it was killed
		_ = conn.Close()
	})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(counters)
		lines.Split(counterLines)
		for published := 0; lines.Scan(); {
			var sessions, quits, taken int
			if _, err := fmt.Sscanf(lines.Text(), "sess=%d quit=%d mesg=%d", &sessions, &quits, &taken); err != nil {
				s.b.Errorf("smtp-sink says %q", lines.Text())
				return
			}
			for ; published < taken; published++ {
				sh.publish(ch)
			}
		}
	}()
	return sh
}

// counterLines splits what smtp-sink -c says, which ends its lines with a bare CR.
func counterLines(data []byte, _ bool) (advance int, line []byte, err error) {
	if i := bytes.IndexByte(data, '\r'); i >= 0 {
		return i + 1, data[:i], nil
	}
	return 0, nil, nil
}

func (sh *shadow) publish(ch *amqp091.Channel) {
	ctx := context.Background() // the benchmark's has ended when the last confirms come
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "spam", "spam.mails", true, false, amqp091.Publishing{
		DeliveryMode: amqp091.Persistent, ContentType: "message/rfc822", Body: make([]byte, mailSize),
	})
	if err != nil {
		sh.b.Errorf("a bare publish failed: %v", err)
		return
	}
	go func() {
		if confirm.Wait() {
			sh.confirmed.Add(1)
		}
	}()
}

// await returns when so many are confirmed.
func (sh *shadow) await(count int) {
	sh.b.Helper()
	rig.Eventually(sh.b, time.Minute, fmt.Sprintf("%d mails of the publisher beside the sink are confirmed", count), func() bool {
		return sh.confirmed.Load() == int64(count)
	})
}
