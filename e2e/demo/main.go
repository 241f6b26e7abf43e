// Command demo is the driver of `make demo`: a sender of mail at one end of the chain and a backend at the other. It runs in
// a container beside the services; demo.sh starts it and breaks things meanwhile. Like any backend it reads through a queue
// of its own, so that it takes nothing from spam.mails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `usage: demo COMMAND [flags]
  show    send a few mails and show each as it lies in RabbitMQ
  send    bind a queue, then send -n mails of burst -id
  count   read that queue until all -n mails are there, and count
  bind    bind the queue of -id
  collected  read that queue, and show the -n mails that came out of mailboxes
`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	flags := flag.NewFlagSet("demo "+args[0], flag.ContinueOnError)
	var broker broker
	flags.StringVar(&broker.host, "amqp", "rabbitmq:5672", "host:port of RabbitMQ")
	flags.StringVar(&broker.user, "user", "reader", "RabbitMQ user")
	flags.StringVar(&broker.password, "password-file", "/run/secrets/amqp/password", "file that holds the user's password")
	smtp := flags.String("smtp", "postfix:25", "host:port of Postfix")
	n := flags.Int("n", 1000, "mails of the burst")
	id := flags.String("id", "burst", "name of the burst; part of its queue's name")
	limit := flags.Duration("limit", 3*time.Minute, "give up after this time")
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()

	var err error
	switch args[0] {
	case "show":
		err = show(ctx, broker, *smtp)
	case "send":
		err = sendBurst(ctx, broker, *smtp, *id, *n)
	case "count":
		err = countBurst(ctx, broker, *id, *n)
	case "bind":
		err = bindQueue(ctx, broker, *id)
	case "collected":
		err = showCollected(ctx, broker, *id, *n)
	default:
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("gave up after %v: %w", *limit, err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}
