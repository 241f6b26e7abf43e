package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// quiet is how long nothing may come before the count is final: a copy that was on its way would have come by then.
const quiet = 3 * time.Second

// countBurst reads the burst's queue until every mail is there and no more copies come, and says how many. It starts when
// nothing is broken any more: what a consumer had unacknowledged in a crash would look like copies.
func countBurst(ctx context.Context, b broker, id string, n int) error {
	in, err := b.open(ctx, id)
	if err != nil {
		return err
	}
	defer in.remove()
	deliveries, err := in.consume()
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	seen := map[string]string{} // number of the mail to its message_id
	copies, problem := 0, error(nil)
	for timer := time.NewTimer(quiet); ; {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return errors.New("RabbitMQ closed the connection")
			}
			number := burstNumber(&d, id)
			if first, again := seen[number]; again {
				copies++
				if first != d.MessageId {
					problem = fmt.Errorf("the copies of mail %s have different message ids: %s and %s", number, first, d.MessageId)
				}
			} else if number != "" {
				seen[number] = d.MessageId
			}
			if err := d.Ack(false); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
			timer.Reset(quiet)
		case <-timer.C:
			if len(seen) >= n {
				fmt.Printf("%d accepted, %d arrived, %d duplicates\n", n, len(seen), copies)
				return problem
			}
			timer.Reset(quiet)
		case <-ctx.Done():
			fmt.Printf("%d accepted, %d arrived, %d duplicates\n", n, len(seen), copies)
			return fmt.Errorf("%d mails are missing: %w", n-len(seen), ctx.Err())
		}
	}
}

// burstNumber returns the number of a mail of burst id, "" for another mail: the exchange carries everybody's.
func burstNumber(d *amqp091.Delivery, id string) string {
	m, err := mail.ReadMessage(bytes.NewReader(d.Body))
	if err != nil {
		return ""
	}
	number, ok := strings.CutPrefix(m.Header.Get(burstHeader), id+"/")
	if !ok {
		return ""
	}
	return number
}
