package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
)

// bindQueue makes the queue that showCollected reads, so that no mail is missed that is delivered in between.
func bindQueue(ctx context.Context, b broker, id string) error {
	in, err := b.open(ctx, id)
	if err != nil {
		return err
	}
	in.close()
	return nil
}

// showCollected prints n mails that came out of mailboxes, as they lie in RabbitMQ. It fails when one does not come.
func showCollected(ctx context.Context, b broker, id string, n int) error {
	in, err := b.open(ctx, id)
	if err != nil {
		return err
	}
	defer in.remove()
	deliveries, err := in.consume()
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	for range n {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return errors.New("RabbitMQ closed the connection")
			}
			if err := showMailbox(&d); err != nil {
				return err
			}
			if err := d.Ack(false); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func showMailbox(d *amqp091.Delivery) error {
	e, err := envelope.Parse(d)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(d.Body)
	if digest := hex.EncodeToString(sum[:]); digest != e.SHA256 {
		return fmt.Errorf("the header sha256 says %s, the body has %s", e.SHA256, digest)
	}
	if e.IMAP == nil {
		return fmt.Errorf("mail %s did not come out of a mailbox", e.MessageID)
	}
	fmt.Printf("  mailbox     %s\n  folder      %s (junk: %v), UID %d\n  subject     %s\n  size        %d bytes\n  sha256      %s\n\n",
		e.IMAP.Mailbox, e.IMAP.Folder, e.IMAP.Junk, e.IMAP.UID, subject(d.Body), e.Size, e.SHA256)
	return nil
}
