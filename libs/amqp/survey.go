package amqp

import (
	"context"
	"errors"
	"fmt"

	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
)

// Sight is what Survey has found at a broker.
type Sight struct {
	Broker   string // host:port
	User     string
	Exchange error // nil: it is there
	Queues   []QueueSight
}

// QueueSight is a queue.
type QueueSight struct {
	Name                string
	Err                 error // nil: it is there
	Messages, Consumers int
}

// Survey connects to the first broker of cfg that works, looks whether its exchange and queues are there, and changes nothing. It blocks for 15 s a
// broker at most. An error means that no broker could be used; it says why, and holds no password.
func Survey(ctx context.Context, cfg Config, queues ...string) (Sight, error) {
	nowhere := zerolog.Nop()
	list := brokers{cfg: &cfg, use: "use", log: &nowhere}
	var seen Sight
	err := list.connect(ctx, func(c *connection) error {
		defer c.close()
		seen = Sight{Broker: c.broker.address(), User: c.broker.user}
		ask := &scratch{conn: c.conn}
		seen.Exchange = absent(ask.do(func(ch *amqp091.Channel) error {
			return ch.ExchangeDeclarePassive(cfg.Exchange, amqp091.ExchangeTopic, cfg.ExchangeDurable, false, false, false, nil)
		}))
		for _, name := range queues {
			found, err := c.lookUp(ask, name)
			seen.Queues = append(seen.Queues, QueueSight{Name: name, Err: absent(err), Messages: found.Messages, Consumers: found.Consumers})
		}
		return nil
	})
	return seen, err
}

// ErrAbsent is that an object does not exist.
var ErrAbsent = errors.New("it is absent")

func absent(err error) error {
	if answered(err, amqp091.NotFound) {
		return ErrAbsent
	}
	if err != nil {
		why, _ := describe(err)
		return fmt.Errorf("it cannot be looked at: %s", why)
	}
	return nil
}
