// Package command holds the subcommands of hpfeeds-bridge beside those that every service has.
package command

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/hpfeeds-bridge/internal/bridge"
	"spamtraps.internal/hpfeeds-bridge/internal/config"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds"
)

// Deadletter returns the subcommand that shows the mails which could not be published, puts them back into the bridge's queue, and copies them
// out. It may run beside the service, and it never deletes a mail.
func Deadletter() daemon.Command[config.Config] {
	return daemon.Command[config.Config]{
		Name:  "deadletter",
		Usage: "[list | show ID | requeue all|ID… | export DIR|- [ID…]]",
		About: "show, requeue and copy the mails that could not be published",
		Run:   runDeadletter,
	}
}

func runDeadletter(ctx context.Context, p daemon.Process, cfg config.Config, args []string) int {
	u := &undertaker{cfg: cfg, out: p.Stdout, notes: p.Stderr}
	defer u.end()
	err := u.run(ctx, args)
	switch {
	case err == nil && !u.incomplete:
		return daemon.ExitOK
	case errors.As(err, new(usageError)):
		fmt.Fprintf(p.Stderr, "hpfeeds-bridge: %s\n", err)
		return daemon.ExitRefused
	case err != nil:
		fmt.Fprintf(p.Stderr, "hpfeeds-bridge: %s\n", hpfeeds.Sanitize(err.Error()))
	}
	return daemon.ExitFailed
}

// usageError is a command line that cannot be meant.
type usageError string

func (e usageError) Error() string { return string(e) }

// mostLooks is how often a dead letter may have been looked at before it is published anew. The queue may give it up at 20.
const mostLooks = 8

// undertaker is one call of the command.
type undertaker struct {
	cfg        config.Config
	out, notes io.Writer
	incomplete bool // some mail that was named is not there, or could not be copied; it was said
	publishers map[string]*running
}

func (u *undertaker) run(ctx context.Context, args []string) error {
	verb := "list"
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	do, known := map[string]func(context.Context, []string) error{
		"list": u.list, "show": u.show, "requeue": u.requeue, "export": u.export,
	}[verb]
	if !known {
		return usageError(fmt.Sprintf("deadletter can list, show, requeue and export, not %q (deadletter -h shows how)", verb))
	}
	return do(ctx, args)
}

// look shows see each dead letter. One that has been looked at often is put at the end of the queue as a new message, so that looking never ends
// a mail.
func (u *undertaker) look(ctx context.Context, see func(*amqp091.Delivery) (taken bool, err error)) error {
	return amqp.Look(ctx, u.cfg.AMQP, u.cfg.Bridge.DeadLetter, zerolog.Nop(), func(d *amqp091.Delivery) (bool, error) {
		taken, err := see(d)
		if looks, _ := d.Headers["x-delivery-count"].(int64); taken || err != nil || looks < mostLooks {
			return taken, err
		}
		if err := u.publish(ctx, u.cfg.Bridge.Morgue(u.cfg.AMQP), message(d, func(name string) bool { return strings.HasPrefix(name, "x-") })); err != nil {
			return false, err
		}
		return true, nil
	})
}

func (u *undertaker) list(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return usageError("deadletter list takes no arguments")
	}
	fmt.Fprintf(u.out, "%-20s  %-9s  %10s  %-69s  %s\n", "SINCE", "REASON", "BYTES", "ID", "DETAIL")
	mails, bytes := 0, int64(0)
	err := u.look(ctx, func(d *amqp091.Delivery) (bool, error) {
		mails++
		bytes += int64(len(d.Body))
		fmt.Fprintf(u.out, "%-20s  %-9s  %10d  %-69s  %s\n", header(d, bridge.HeaderAt), header(d, bridge.HeaderReason), len(d.Body), id(d), header(d, bridge.HeaderDetail))
		return false, nil
	})
	fmt.Fprintf(u.notes, "%d mails, %d bytes\n", mails, bytes)
	return err
}

func (u *undertaker) show(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return usageError("deadletter show takes the id of one mail, as deadletter list shows it")
	}
	return u.each(ctx, args, func(d *amqp091.Delivery) (bool, error) {
		text, err := describe(d)
		fmt.Fprintf(u.out, "%s\n", text)
		return false, err
	})
}

// each shows do the dead letters that are meant, and names those that are not there.
func (u *undertaker) each(ctx context.Context, ids []string, do func(*amqp091.Delivery) (bool, error)) error {
	found := make(map[string]bool)
	err := u.look(ctx, func(d *amqp091.Delivery) (bool, error) {
		if len(ids) > 0 && !slices.Contains(ids, id(d)) {
			return false, nil
		}
		found[id(d)] = true
		return do(d)
	})
	if err != nil {
		return err
	}
	for _, name := range ids {
		if !found[name] {
			u.incomplete = true
			fmt.Fprintf(u.notes, "%s: there is no such mail in queue %q\n", hpfeeds.Sanitize(name), u.cfg.Bridge.DeadLetter)
		}
	}
	return nil
}

func (u *undertaker) requeue(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError("deadletter requeue takes the ids of mails, or the word all")
	}
	ids := args
	if args[0] == "all" {
		if len(args) > 1 {
			return usageError(fmt.Sprintf("all stands for all mails, so %q is too much", args[1]))
		}
		ids = nil
	}
	// An exchange of the queue's own: the common one would give the mail to everybody again.
	to := u.cfg.AMQP
	to.Exchange, to.Queue = u.cfg.Bridge.Queue, u.cfg.Bridge.Queue
	done := 0
	err := u.each(ctx, ids, func(d *amqp091.Delivery) (bool, error) {
		m := message(d, func(name string) bool {
			return strings.HasPrefix(name, bridge.HeaderPrefix) || strings.HasPrefix(name, "x-")
		})
		if err := u.publish(ctx, to, m); err != nil {
			return false, err
		}
		done++
		return true, nil
	})
	fmt.Fprintf(u.notes, "%d mails are in queue %q again\n", done, u.cfg.Bridge.Queue)
	return err
}

func (u *undertaker) export(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError("deadletter export takes a folder to copy to, or - and the id of one mail for stdout")
	}
	to, ids := args[0], args[1:]
	if to == "-" {
		if len(ids) != 1 {
			return usageError("deadletter export - takes the id of one mail")
		}
		return u.each(ctx, ids, func(d *amqp091.Delivery) (bool, error) {
			_, err := u.out.Write(d.Body)
			return false, err
		})
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	copied := 0
	err := u.each(ctx, ids, func(d *amqp091.Delivery) (bool, error) {
		if err := copyTo(to, d); err != nil {
			u.incomplete = true
			fmt.Fprintf(u.notes, "%s: %s\n", id(d), hpfeeds.Sanitize(err.Error()))
			return false, nil
		}
		copied++
		return false, nil
	})
	fmt.Fprintf(u.notes, "%d mails copied to %s, each as .eml with its headers as .json\n", copied, to)
	return err
}

// copyTo never writes over a file.
func copyTo(folder string, d *amqp091.Delivery) error {
	text, err := describe(d)
	if err != nil {
		return err
	}
	name := filepath.Join(folder, fileName(d.MessageId))
	return errors.Join(write(name+".eml", d.Body), write(name+".json", append(text, '\n')))
}

// fileName is the id of a mail if that can be a name, else its bytes in hex: it is a stranger's choice.
func fileName(id string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' || r == '_'
	}
	if id != "" && len(id) <= 100 && strings.IndexFunc(id, func(r rune) bool { return !plain(r) }) < 0 {
		return id
	}
	return "id-" + hex.EncodeToString([]byte(id))[:min(2*len(id), 100)]
}

func write(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// describe returns all but the mail itself, as JSON.
func describe(d *amqp091.Delivery) ([]byte, error) {
	return json.MarshalIndent(struct {
		MessageID string        `json:"message_id"`
		App       string        `json:"app_id"`
		Size      int           `json:"size"`
		Headers   amqp091.Table `json:"headers"`
	}{id(d), d.AppId, len(d.Body), d.Headers}, "", "  ")
}

// id is what a mail is called, printable.
func id(d *amqp091.Delivery) string { return hpfeeds.Sanitize(d.MessageId) }

// header returns a header of ours, - when there is none: the broker itself has put the mail there then, which says so in x-death.
func header(d *amqp091.Delivery, name string) string {
	if text, ok := d.Headers[name].(string); ok && text != "" {
		return hpfeeds.Sanitize(text)
	}
	if name == bridge.HeaderReason {
		if reason, ok := d.Headers["x-first-death-reason"].(string); ok {
			return hpfeeds.Sanitize(reason)
		}
	}
	return "-"
}

// message returns a dead letter as a new message, less the headers that strip names.
func message(d *amqp091.Delivery, strip func(name string) bool) amqp091.Publishing {
	headers := maps.Clone(d.Headers)
	maps.DeleteFunc(headers, func(name string, _ any) bool { return strip(name) })
	id := d.MessageId
	if id == "" { // the broker itself has put it there
		id = fmt.Sprintf("dead-%x", bridge.Key(d.Body))
	}
	return amqp091.Publishing{
		Headers: headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: amqp091.Persistent,
		MessageId: id, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body,
	}
}

// running is a publisher that runs until the command ends.
type running struct {
	*amqp.Publisher
	stop  context.CancelFunc
	ended chan struct{}
}

// publishLimit is how long the broker may take until it can be published to.
const publishLimit = 20 * time.Second

// publish hands a message to the exchange of cfg, and returns nil when the broker has it.
func (u *undertaker) publish(ctx context.Context, cfg amqp.Config, m amqp091.Publishing) error {
	r := u.publishers[cfg.Exchange]
	if r == nil {
		r = &running{Publisher: amqp.NewPublisher(cfg, zerolog.Nop(), prometheus.NewRegistry()), ended: make(chan struct{})}
		var runs context.Context
		runs, r.stop = context.WithCancel(context.WithoutCancel(ctx))
		go func() { defer close(r.ended); _ = r.Run(runs) }() // it returns nil
		if u.publishers == nil {
			u.publishers = make(map[string]*running)
		}
		u.publishers[cfg.Exchange] = r
	}
	limit := time.NewTimer(publishLimit)
	defer limit.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := r.Publish(ctx, m)
		failure, ok := errors.AsType[*amqp.Error](err)
		if !ok || failure.Permanent {
			return err
		}
		select {
		case <-again.C:
		case <-limit.C:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (u *undertaker) end() {
	for _, r := range u.publishers {
		r.stop()
		<-r.ended
	}
}
