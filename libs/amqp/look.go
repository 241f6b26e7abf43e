package amqp

import (
	"context"
	"errors"
	"fmt"

	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
)

// Look shows see each message that is in a queue, one at a time, and leaves them in it, perhaps in another order, save those for which see returns that it has
// dealt with them: these are acknowledged at once. It declares nothing. It returns when all that was there at the start has been seen, see has
// returned an error, which ends it, or ctx has ended; whatever its end, what was only seen is back in the queue then.
//
// A quorum queue counts each look at a message, and gives it up after as many as its limit says, 20 by default: x-delivery-count among the
// headers tells. See can keep a message from that by publishing it anew before it says that it has dealt with it.
func Look(ctx context.Context, cfg Config, queue string, log zerolog.Logger, see func(*amqp091.Delivery) (dealtWith bool, err error)) error {
	var conn *connection
	var messages int
	from := brokers{cfg: &cfg, use: fmt.Sprintf("look at queue %q at", queue), log: &log}
	err := from.connect(ctx, func(c *connection) error {
		conn = c
		go c.watch(c.conn.NotifyClose(make(chan *amqp091.Error, 1)))
		ask := &scratch{conn: c.conn}
		defer ask.close()
		found, err := c.lookUp(ask, queue)
		messages = found.Messages
		return c.topologyFault(fmt.Sprintf("look up queue %q", queue), "", err)
	})
	if err != nil {
		return err
	}
	defer conn.close()
	stop := context.AfterFunc(ctx, func() { conn.wire.cut(context.Cause(ctx)) })
	defer stop()
	channel, err := conn.conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	for range messages {
		d, there, err := channel.Get(queue, false)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return conn.topologyFault(fmt.Sprintf("get from queue %q", queue), fmt.Sprintf("user %q lacks the right to read it", conn.broker.user), err)
		}
		if !there {
			return nil // somebody else has taken the rest
		}
		dealtWith, err := see(&d)
		if dealtWith {
			err = errors.Join(err, d.Ack(false))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
