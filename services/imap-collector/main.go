// Imap-collector takes mail out of mailboxes by IMAP and publishes it to RabbitMQ. It marks, deletes or moves a mail only after the
// broker has confirmed it.
package main

import (
	"os"

	"spamtraps.internal/imap-collector/internal/command"
	"spamtraps.internal/imap-collector/internal/config"
	"spamtraps.internal/libs/daemon"
)

func main() {
	process := daemon.OSProcess()
	p := &program{screen: command.NewScreen(os.Stderr), stdout: os.Stdout}
	process.Stderr = p.screen
	os.Exit(daemon.Main(p.service(), process))
}

func (p *program) service() daemon.Service[config.Config] {
	return daemon.Service[config.Config]{
		Name:      "imap-collector",
		About:     "Collects mail from mailboxes by IMAP and publishes it to RabbitMQ; it marks, deletes or moves a mail only after the broker has confirmed it.",
		Defaults:  config.Defaults,
		Prefixes:  []string{"MAILBOX", "SHARD"},
		Run:       p.run,
		Metrics:   metrics,
		ExitCodes: []string{"4 all that was asked is published but mails that are too large, which were left where they are"},
		Commands:  []daemon.Command[config.Config]{command.Check()},
	}
}
