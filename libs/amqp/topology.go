package amqp

import (
	"errors"
	"fmt"

	"github.com/rabbitmq/amqp091-go"
)

// scratch is a channel for requests that may be refused. A refusal closes the channel, so the next request has a new one.
type scratch struct {
	conn    *amqp091.Connection
	channel *amqp091.Channel
}

func (s *scratch) do(request func(*amqp091.Channel) error) error {
	if s.channel == nil || s.channel.IsClosed() {
		channel, err := s.conn.Channel()
		if err != nil {
			return fmt.Errorf("open a channel: %w", err)
		}
		s.channel = channel
	}
	return request(s.channel)
}

func (s *scratch) close() {
	if s.channel != nil {
		_ = s.channel.Close() // only tidiness: it goes with the connection
	}
}

// answered tells whether err is the broker's answer with that code.
func answered(err error, code int) bool {
	var answer *amqp091.Error
	return errors.As(err, &answer) && answer.Server && answer.Code == code
}

// topology sees to it that exchange and queue exist and that the one leads to the other. It looks first, which needs no
// rights, and takes what is there as it is; it declares only what is absent. A broker whose own definitions make the binding
// forbids us to: that is reported as unbound and is no error.
func (c *connection) topology(queueArgs amqp091.Table) (forbidden error, err error) {
	ask := &scratch{conn: c.conn}
	defer ask.close()
	if c.cfg.Exchange == "" { // the default one, which is bound to each queue by that queue's name
		_, err := c.lookUp(ask, c.cfg.RoutingKey)
		return nil, c.topologyFault(fmt.Sprintf("look up queue %q", c.cfg.RoutingKey), "", err)
	}
	if err := c.exchange(ask); err != nil {
		return nil, err
	}
	if c.cfg.Queue == "" {
		return nil, nil
	}
	if err := c.queue(ask, queueArgs); err != nil {
		return nil, err
	}
	err = ask.do(func(ch *amqp091.Channel) error {
		return ch.QueueBind(c.cfg.Queue, c.cfg.RoutingKey, c.cfg.Exchange, false, nil)
	})
	if answered(err, amqp091.AccessRefused) {
		return err, nil
	}
	return nil, c.topologyFault(fmt.Sprintf("bind queue %q to exchange %q", c.cfg.Queue, c.cfg.Exchange), "", err)
}

func (c *connection) exchange(ask *scratch) error {
	name := c.cfg.Exchange
	err := ask.do(func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclarePassive(name, amqp091.ExchangeTopic, c.cfg.ExchangeDurable, false, false, false, nil)
	})
	if !answered(err, amqp091.NotFound) {
		return c.topologyFault(fmt.Sprintf("look up exchange %q", name), "", err)
	}
	err = ask.do(func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare(name, amqp091.ExchangeTopic, c.cfg.ExchangeDurable, false, false, false, nil)
	})
	return c.topologyFault(fmt.Sprintf("declare exchange %q, which is absent", name),
		fmt.Sprintf("user %q lacks the right to configure it", c.broker.user), err)
}

func (c *connection) queue(ask *scratch, args amqp091.Table) error {
	name := c.cfg.Queue
	_, err := c.lookUp(ask, name)
	if !answered(err, amqp091.NotFound) {
		return c.topologyFault(fmt.Sprintf("look up queue %q", name), "", err)
	}
	err = ask.do(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, args)
		return err
	})
	return c.topologyFault(fmt.Sprintf("declare queue %q, which is absent", name),
		fmt.Sprintf("user %q lacks the right to configure it", c.broker.user), err)
}

// lookUp asks for a queue's number of messages and consumers.
func (c *connection) lookUp(ask *scratch, name string) (amqp091.Queue, error) {
	var found amqp091.Queue
	err := ask.do(func(ch *amqp091.Channel) (err error) {
		found, err = ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	})
	return found, err
}

// topologyFault says which object, and which right if that is what is missing. Without an error it is nil.
func (c *connection) topologyFault(doing, right string, err error) error {
	if err == nil {
		return nil
	}
	f := newFault("cannot "+c.use+" "+c.broker.address(), err)
	f.why = "cannot " + doing + ": " + f.why
	if right != "" && answered(err, amqp091.AccessRefused) {
		f.why = "cannot " + doing + ": " + right + " (403)"
	}
	return f
}
