package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/mail"
	"strings"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
)

// show sends a few mails of the kinds that traps get and prints each as it comes out of RabbitMQ. It fails when one does not
// come, or differs from what was sent.
func show(ctx context.Context, b broker, address string) error {
	id := fmt.Sprintf("show-%d", time.Now().UnixNano())
	in, err := b.open(ctx, id)
	if err != nil {
		return err
	}
	defer in.remove()
	deliveries, err := in.consume()
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	letters := samples()
	if err := post(ctx, address, letters, func() {}); err != nil {
		return err
	}
	fmt.Printf("sent %d mails to Postfix; in RabbitMQ they are:\n\n", len(letters))
	for range letters {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return errors.New("RabbitMQ closed the connection")
			}
			if err := showOne(&d, letters); err != nil {
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

func samples() []letter {
	attachment := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("malware? "), 20_000))
	var lines strings.Builder
	for len(attachment) > 76 {
		lines.WriteString(attachment[:76] + "\r\n")
		attachment = attachment[76:]
	}
	header := func(subject string) string { return "From: a@spam.example\r\nSubject: " + subject + "\r\n" }
	return []letter{
		{"bargain@spam.example", []string{"sales@trap.example"}, header("Cheap watches") + "\r\nBuy now.\r\n"},
		{"", []string{"forged@trap.example"}, header("Undelivered Mail Returned to Sender") + "\r\nThe joe job's bounce.\r\n"},
		{
			"list@spam.example",
			[]string{"one@trap.example", "two@other-trap.example", "three@trap.example"},
			header("One mail, three traps") + "\r\nDear customer,\r\n..dots and a line of 2,000 characters:\r\n" +
				strings.Repeat("x", 2000) + "\r\n",
		},
		{"bank@spam.example", []string{"victim@trap.example"}, header(mime.QEncoding.Encode("utf-8", "Ihr Konto läuft ab ✉")) +
			"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nSehr geehrter Empf\xe4nger,\r\n8-bit bytes stay as they are.\r\n"},
		{"invoice@spam.example", []string{"accounts@trap.example"}, header("Invoice 4711") +
			"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines.String()},
	}
}

func showOne(d *amqp091.Delivery, letters []letter) error {
	e, err := envelope.Parse(d)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(d.Body)
	if digest := hex.EncodeToString(sum[:]); digest != e.SHA256 {
		return fmt.Errorf("the header sha256 says %s, the body has %s", e.SHA256, digest)
	}
	if e.LMTP == nil {
		return fmt.Errorf("mail %s has no LMTP envelope", e.MessageID)
	}
	if !asSent(d.Body, e.LMTP.MailFrom, letters) {
		return fmt.Errorf("mail %s from <%s> is none of those that were sent, byte for byte", e.MessageID, e.LMTP.MailFrom)
	}
	fmt.Printf("  client      %s\n  sender      <%s>\n  recipients  <%s>\n  subject     %s\n  size        %d bytes\n  sha256      %s\n\n",
		e.LMTP.ClientAddr, e.LMTP.MailFrom, strings.Join(e.LMTP.RcptTo, ">, <"), subject(d.Body), e.Size, e.SHA256)
	return nil
}

// asSent tells whether the body is one of the letters behind the headers that Postfix put before it.
func asSent(body []byte, from string, letters []letter) bool {
	for _, l := range letters {
		if l.from == from && bytes.HasSuffix(body, []byte(l.text)) {
			return true
		}
	}
	return false
}

func subject(body []byte) string {
	m, err := mail.ReadMessage(bytes.NewReader(body))
	if err != nil {
		return "(no headers that can be read)"
	}
	raw := m.Header.Get("Subject")
	if text, err := new(mime.WordDecoder).DecodeHeader(raw); err == nil {
		raw = text
	}
	// A terminal takes commands from control characters, and this text comes from spammers.
	return fmt.Sprintf("%q", raw)
}
