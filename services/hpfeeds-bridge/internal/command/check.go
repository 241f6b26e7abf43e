package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"spamtraps.internal/hpfeeds-bridge/internal/config"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds"
)

// Check returns the subcommand that tries both sides as the bridge would use them, and says what to do about each problem. It changes nothing: it
// declares nothing at RabbitMQ, takes no mail, and publishes to the hpfeeds broker nothing but a token on the fence's channel, unless asked to.
func Check() daemon.Command[config.Config] {
	var o checkOptions
	return daemon.Command[config.Config]{
		Name:  "check",
		Usage: "[--publish]",
		About: "try both brokers: connection, login, rights, fence; changes nothing",
		Flags: o.register,
		Run: func(ctx context.Context, p daemon.Process, cfg config.Config, args []string) int {
			if len(args) > 0 {
				fmt.Fprintln(p.Stderr, "hpfeeds-bridge: check takes no arguments")
				return daemon.ExitRefused
			}
			return (&checker{checkOptions: o, out: p.Stdout, quiet: quiet, echo: echoLimit}).main(ctx, cfg)
		},
	}
}

type checkOptions struct{ publish bool }

func (o *checkOptions) register(flags *pflag.FlagSet) {
	flags.BoolVar(&o.publish, "publish", false, "publish a small test mail to each channel, which only then shows whether that is allowed")
}

const (
	// quiet is how long a broker has to say no; it never says yes.
	quiet = 2 * time.Second
	// echoLimit is how long a token may take to come back.
	echoLimit = 10 * time.Second
)

// testMail is what --publish sends; no broker refuses it for being empty.
const testMail = "From: hpfeeds-bridge\r\nSubject: test message of hpfeeds-bridge check\r\n\r\nThis is no spam. Somebody tries out whether it arrives.\r\n"

// checker is one call of the command.
type checker struct {
	checkOptions
	out         io.Writer
	quiet, echo time.Duration
	bad         bool
}

func (c *checker) main(ctx context.Context, cfg config.Config) int {
	c.rabbitmq(ctx, cfg)
	if !cfg.On {
		c.problem("hpfeeds", "no broker is configured", "set HPFEEDS_HOST, HPFEEDS_IDENT and HPFEEDS_SECRET (or, in the feed file, type: hpfeeds and the section hpfeeds)")
	} else if c.login(ctx, cfg) {
		fenced := c.fence(ctx, cfg)
		for _, channel := range cfg.HPFeeds.Channels {
			c.channel(ctx, cfg, channel, fenced)
		}
	}
	if c.bad {
		return daemon.ExitFailed
	}
	return daemon.ExitOK
}

func (c *checker) good(what, format string, args ...any) {
	c.line("ok", what, fmt.Sprintf(format, args...))
}

func (c *checker) hint(what, format string, args ...any) {
	c.line("note", what, fmt.Sprintf(format, args...))
}

// problem says what is wrong and what to do about it.
func (c *checker) problem(what, wrong, do string) {
	c.bad = true
	c.line("FAIL", what, strings.TrimPrefix(wrong, "hpfeeds: ")+": "+do)
}

func (c *checker) line(verdict, what, text string) {
	fmt.Fprintf(c.out, "%-4s  %s: %s\n", verdict, what, hpfeeds.Sanitize(text))
}

func (c *checker) rabbitmq(ctx context.Context, cfg config.Config) {
	const what = "rabbitmq"
	seen, err := amqp.Survey(ctx, cfg.AMQP, cfg.Bridge.Queue, cfg.Bridge.DeadLetter)
	if err != nil {
		c.problem(what, err.Error(), "look at the AMQP_ settings (config shows them) and whether the broker runs")
		return
	}
	c.good(what, "user %q is logged in at %s", seen.User, seen.Broker)
	switch {
	case errors.Is(seen.Exchange, amqp.ErrAbsent):
		c.hint(what, "exchange %q is absent: whoever publishes first, or the bridge, will declare it", cfg.AMQP.Exchange)
	case seen.Exchange != nil:
		c.problem(what, fmt.Sprintf("exchange %q: %s", cfg.AMQP.Exchange, seen.Exchange), "look at AMQP_EXCHANGE")
	default:
		c.good(what, "exchange %q is there", cfg.AMQP.Exchange)
	}
	for _, queue := range seen.Queues {
		switch {
		case errors.Is(queue.Err, amqp.ErrAbsent):
			c.hint(what, "queue %q is absent: the bridge will declare it, for which its user needs the right to configure it", queue.Name)
		case queue.Err != nil:
			c.problem(what, fmt.Sprintf("queue %q: %s", queue.Name, queue.Err), "look at BRIDGE_QUEUE and BRIDGE_DEADLETTER")
		default:
			c.good(what, "queue %q is there, with %d messages and %d consumers", queue.Name, queue.Messages, queue.Consumers)
		}
	}
}

// login tells whether the hpfeeds broker lets the ident in.
func (c *checker) login(ctx context.Context, cfg config.Config) bool {
	what := "hpfeeds"
	if !cfg.HPFeeds.TLS {
		c.hint(what, "TLS is off (HPFEEDS_TLS): everybody on the way can read the mails")
	} else if !cfg.HPFeeds.CheckCert {
		c.hint(what, "the broker's certificate is not verified (HPFEEDS_CHECK_CERT): it may be anybody")
	}
	conn, err := hpfeeds.Dial(ctx, cfg.HPFeeds, hpfeeds.Options{})
	if err == nil {
		defer func() { _ = conn.Close() }()
		err = c.wait(ctx, conn)
	}
	if err != nil {
		c.problem(what, err.Error(), advice(err))
		return false
	}
	c.good(what, "%q is logged in at %s, which calls itself %q", cfg.HPFeeds.Ident, cfg.HPFeeds.Address(), conn.Broker())
	return true
}

// wait gives the broker time to say no.
func (c *checker) wait(ctx context.Context, conn *hpfeeds.Conn) error {
	calm := time.NewTimer(c.quiet)
	defer calm.Stop()
	select {
	case <-calm.C:
		return nil
	case <-conn.Done():
		return conn.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// advice says what to do about an error of the hpfeeds side.
func advice(err error) string {
	var e *hpfeeds.Error
	if !errors.As(err, &e) {
		return "try again"
	}
	switch e.Reason {
	case hpfeeds.ReasonAuth:
		return "set HPFEEDS_IDENT and HPFEEDS_SECRET to what the broker's operator gave you"
	case hpfeeds.ReasonRights:
		return "ask the broker's operator for the right, or name another channel"
	case hpfeeds.ReasonTLS:
		return "look at HPFEEDS_TLS, HPFEEDS_CA_FILE and the broker's certificate"
	case hpfeeds.ReasonProtocol:
		return "look at HPFEEDS_PORT and HPFEEDS_TLS: something else listens there, or it wants TLS"
	case hpfeeds.ReasonSilent:
		return "look at HPFEEDS_PORT and HPFEEDS_TLS: a broker speaks first, unless it waits for TLS"
	case hpfeeds.ReasonHungUp:
		return "ask the broker's operator what its log says; most often ident or secret are wrong"
	case hpfeeds.ReasonUnreachable:
		return "look at HPFEEDS_HOST and HPFEEDS_PORT, and whether a firewall is in between"
	}
	return "try again, and ask the broker's operator what its log says"
}

// fence tells whether a token comes back over a second connection.
func (c *checker) fence(ctx context.Context, cfg config.Config) bool {
	channel := cfg.Bridge.FenceChannel
	if channel == "" || cfg.Bridge.Confirm == "drained" {
		c.hint("fence", "there is none: what lies in the broker's buffers when it is killed is lost; a channel of your own with the rights to publish and subscribe (BRIDGE_FENCE_CHANNEL) mends that")
		return false
	}
	if err := c.roundTrip(ctx, cfg, channel, func(*hpfeeds.Conn) error { return nil }); err != nil {
		c.problem("fence", fmt.Sprintf("channel %q: %s", channel, err), advice(err))
		return false
	}
	c.good("fence", "what is published to channel %q comes back", channel)
	return true
}

// errNoEcho is that no token came back.
var errNoEcho = errors.New("nothing came back, and nothing was said: may the ident publish and subscribe there?")

// roundTrip does something on one connection, and waits until a token that is published after it comes back over another.
func (c *checker) roundTrip(ctx context.Context, cfg config.Config, channel string, do func(*hpfeeds.Conn) error) error {
	out, err := hpfeeds.Dial(ctx, cfg.HPFeeds, hpfeeds.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	in, err := hpfeeds.Dial(ctx, cfg.HPFeeds, hpfeeds.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if err := errors.Join(in.Subscribe(channel), do(out)); err != nil {
		return err
	}
	token := "check " + rand.Text()
	limit := time.Now().Add(c.echo)
	for time.Now().Before(limit) { // again and again: the subscription goes over another connection, and may be processed later
		if err := errors.Join(out.Publish(channel, []byte(token)), out.Flush()); err != nil {
			return err
		}
		back, err := comesBack(ctx, in, token)
		switch {
		case back:
			return out.Err()
		case in.Err() != nil:
			return in.Err()
		case ctx.Err() != nil:
			return err
		}
	}
	return errNoEcho
}

func comesBack(ctx context.Context, in *hpfeeds.Conn, token string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	for {
		m, err := in.Receive(ctx)
		if err != nil {
			return false, err
		}
		if string(m.Payload) == token {
			return true, nil
		}
	}
}

// channel tells what can be known of a channel for mail.
func (c *checker) channel(ctx context.Context, cfg config.Config, name string, fenced bool) {
	what := fmt.Sprintf("channel %q", name)
	c.hint(what, "a mail may have %d bytes (HPFEEDS_MAX_PAYLOAD; a broker does not tell what it takes); what BRIDGE_OVERSIZE says becomes of larger ones: %s",
		cfg.HPFeeds.PayloadLimit(name), cfg.Bridge.Oversize)
	if !c.publish {
		c.hint(what, "whether %q may publish there only a message shows: check --publish sends one", cfg.HPFeeds.Ident)
		return
	}
	send := func(conn *hpfeeds.Conn) error {
		return errors.Join(conn.Publish(name, []byte(testMail)), conn.Flush())
	}
	err := c.send(ctx, cfg, fenced, send)
	if err != nil {
		c.problem(what, err.Error(), advice(err))
		return
	}
	c.good(what, "a test message was taken")
}

// send publishes, and waits for what tells that the broker took it: a fence, or else that it says nothing.
func (c *checker) send(ctx context.Context, cfg config.Config, fenced bool, send func(*hpfeeds.Conn) error) error {
	if fenced {
		return c.roundTrip(ctx, cfg, cfg.Bridge.FenceChannel, send)
	}
	conn, err := hpfeeds.Dial(ctx, cfg.HPFeeds, hpfeeds.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := send(conn); err != nil {
		return err
	}
	return c.wait(ctx, conn)
}
