package imaptest

import (
	"context"
	"sync"

	"github.com/rabbitmq/amqp091-go"
)

// Broker is a publisher that confirms what it gets, unless it is told otherwise, and remembers it.
type Broker struct {
	mu       sync.Mutex
	answer   func(ctx context.Context, m amqp091.Publishing) error
	ready    error
	received []amqp091.Publishing
}

// Publish does as told by Answer.
func (b *Broker) Publish(ctx context.Context, m amqp091.Publishing) error {
	b.mu.Lock()
	answer := b.answer
	b.mu.Unlock()
	if answer != nil {
		if err := answer(ctx, m); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received = append(b.received, m)
	return nil
}

// Answer has each Publish ask this function first; an error of it is what Publish returns. nil: everything is confirmed.
func (b *Broker) Answer(answer func(ctx context.Context, m amqp091.Publishing) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// SetReady sets what Ready returns.
func (b *Broker) SetReady(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = err
}

// Ready returns what SetReady has set.
func (b *Broker) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready
}

// MaxMessageBytes is 16 MiB.
func (b *Broker) MaxMessageBytes() int64 { return 16 << 20 }

// Received returns what was confirmed so far.
func (b *Broker) Received() []amqp091.Publishing {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]amqp091.Publishing(nil), b.received...)
}

// Copies returns how often each body was confirmed.
func (b *Broker) Copies() map[string]int {
	copies := make(map[string]int)
	for _, m := range b.Received() {
		copies[string(m.Body)]++
	}
	return copies
}

// Store keeps a mail whose confirm will not be heard.
func (b *Broker) Store(m amqp091.Publishing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received = append(b.received, m)
}
