package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/smtp"
	"time"
)

// letter is one mail to send. Its text has CRLF line ends.
type letter struct {
	from string // "" is the null sender
	to   []string
	text string
}

// connect opens an SMTP session, trying until ctx ends because Postfix may be starting.
func connect(ctx context.Context, address string) (*smtp.Client, error) {
	for {
		c, err := smtp.Dial(address)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to Postfix at %s: %w", address, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// post sends letters over one SMTP session, and counts those that were answered 250 by calling accepted.
func post(ctx context.Context, address string, letters []letter, accepted func()) error {
	c, err := connect(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.Hello("demo.example"); err != nil {
		return fmt.Errorf("greet Postfix: %w", err)
	}
	for _, l := range letters {
		if err := l.post(c); err != nil {
			return fmt.Errorf("send a mail to Postfix: %w", err)
		}
		accepted()
	}
	return c.Quit()
}

func (l letter) post(c *smtp.Client) error {
	if err := c.Mail(l.from); err != nil {
		return err
	}
	for _, to := range l.to {
		if err := c.Rcpt(to); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, l.text); err != nil {
		return errors.Join(err, w.Close())
	}
	return w.Close()
}

const (
	burstHeader = "X-Demo-Burst"
	// progressEvery is how many accepted mails make a line on standard output, which demo.sh waits for.
	progressEvery = 100
	sessions      = 4
)

// sendBurst binds the burst's queue, then sends n numbered mails over a few sessions at once. All must be accepted.
func sendBurst(ctx context.Context, b broker, address, id string, n int) error {
	in, err := b.open(ctx, id)
	if err != nil {
		return err
	}
	in.close()
	accepted := make(chan struct{})
	failed := make(chan error, sessions)
	for s := range sessions {
		var letters []letter
		for i := s; i < n; i += sessions {
			letters = append(letters, burstLetter(id, i))
		}
		go func() { failed <- post(ctx, address, letters, func() { accepted <- struct{}{} }) }()
	}
	total, running := 0, sessions
	for running > 0 {
		select {
		case <-accepted:
			if total++; total%progressEvery == 0 || total == n {
				fmt.Printf("accepted %d\n", total)
			}
		case err := <-failed:
			if err != nil {
				return err
			}
			running--
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if total != n {
		return fmt.Errorf("only %d of %d mails were accepted", total, n)
	}
	return nil
}

func burstLetter(id string, i int) letter {
	return letter{
		from: fmt.Sprintf("sender%d@spam.example", i), to: []string{fmt.Sprintf("trap%d@trap.example", i)},
		text: fmt.Sprintf("From: sender%d@spam.example\r\nSubject: Burst %s, mail %d\r\n%s: %s/%d\r\nDate: %s\r\n\r\nBuy now.\r\n",
			i, id, i, burstHeader, id, i, time.Now().Format(time.RFC1123Z)),
	}
}
