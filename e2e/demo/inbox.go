package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

const (
	exchange   = "spam"
	routingKey = "spam.mails"
	// queuePrefix is what the broker's user reader may name its queues.
	queuePrefix = "reader.demo."
	// queueLife is how long a queue outlives a demo that was broken off, in milliseconds.
	queueLife = 10 * 60 * 1000
)

// broker says where RabbitMQ is and how to log in.
type broker struct{ host, user, password string }

// inbox is a durable queue of the demo's own, bound to the exchange like any backend's.
type inbox struct {
	conn    *amqp091.Connection
	channel *amqp091.Channel
	queue   string
}

// open connects, trying until ctx ends because RabbitMQ may be starting, and makes sure that the queue exists and is bound.
func (b broker) open(ctx context.Context, name string) (*inbox, error) {
	for {
		in, err := b.try(name)
		if err == nil {
			return in, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("open a queue in RabbitMQ at %s: %w", b.host, err)
		case <-time.After(time.Second):
		}
	}
}

func (b broker) try(name string) (*inbox, error) {
	password, err := os.ReadFile(b.password)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "amqp", User: url.UserPassword(b.user, strings.TrimSpace(string(password))), Host: b.host, Path: "/"}
	conn, err := amqp091.Dial(u.String())
	if err != nil {
		return nil, err
	}
	in := &inbox{conn: conn, queue: queuePrefix + name}
	if err := in.bind(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return in, nil
}

func (in *inbox) bind() (err error) {
	if in.channel, err = in.conn.Channel(); err != nil {
		return err
	}
	if _, err = in.channel.QueueDeclare(in.queue, true, false, false, false, amqp091.Table{"x-expires": int32(queueLife)}); err != nil {
		return err
	}
	return in.channel.QueueBind(in.queue, routingKey, exchange, false, nil)
}

// consume starts deliveries, each to be acknowledged.
func (in *inbox) consume() (<-chan amqp091.Delivery, error) {
	if err := in.channel.Qos(200, 0, false); err != nil {
		return nil, err
	}
	return in.channel.Consume(in.queue, "", false, false, false, false, nil)
}

// close leaves the queue for a later open.
func (in *inbox) close() { _ = in.conn.Close() }

// remove deletes the queue.
func (in *inbox) remove() {
	_, _ = in.channel.QueueDelete(in.queue, false, false, false)
	in.close()
}
