// Package daemon is the life of a service around its work: it layers and checks the configuration, makes the logger, answers
// /livez, /readyz and /metrics, shows a status page, starts and stops the parts of the service in order, and turns the end into an exit code.
// A service describes itself with a Service value and calls Main; everything else here serves that call.
//
// # Configuration
//
// One tagged struct per service says everything: the loader, -h, `config` and docs/config.md are made from its tags.
// Precedence is flag > environment > YAML file > default. The tags of a field:
//
//	env:"CONFIRM_TIMEOUT"  the variable, after the section's name and "_"; "-": none; "": the section's name alone. Without this tag a field is no setting.
//	yaml:"type"            the key in the section's map, when it isn't the variable in lower case; "-": none
//	flag:"port" short:"p"  the flag; without it there is none
//	desc:"…"               one sentence for an operator
//	empty:"any domain"     it may be set to empty, and this is what that means; other settings refuse an empty value
//	oneof:"json console"   the only values there are
//	unit:"bytes"           an int64 that takes and shows units: "16MiB", "64 MiB", "1000"
//	over:"HOST PORT"       this setting says what those of the same section say: a higher layer silences them, in any other
//	                       case both together are an error
//
// A struct field with the tag section:"AMQP" holds the settings AMQP_… and the map amqp of the YAML file; desc is its heading.
// Kinds: string, bool (YAML 1.1's words too), integers, float64, time.Duration, encoding.TextUnmarshaler, secret.Secret
// (which also comes as the path of a file: X_FILE, x_file), and slices of them (comma list, or a YAML list).
//
// A section, and the whole struct, may have a method
//
//	func (c *LMTP) Validate(bad func(name, problem string))
//
// that reports what the tags cannot say, and settles derived values. The name is the variable's, inside of the section
// ("PORT"; in the method of the whole struct "LMTP_PORT"); a setting without a variable goes by its flag's or key's name. The
// problem reads on after that name, which is shown as the operator wrote it: "must be between 1 and 65535, not 0".
//
// # Exit codes
//
//	0  a clean stop; what was asked for is done; healthcheck: ready
//	1  it failed while running, or was told twice to stop; healthcheck: not ready
//	2  the configuration or the command line was refused, one sentence a problem on stderr
//	3  a part had not stopped within SHUTDOWN_TIMEOUT
//
// A service may add codes of its own from 4 on, with ExitCode.
package daemon

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
)

// The exit codes of Main; a Command returns one of the first three.
const (
	ExitOK      = 0 // a clean stop, or what was asked for is done
	ExitFailed  = 1 // failed while running, or told twice to stop
	ExitRefused = 2 // the configuration or the command line was refused
	ExitTimeout = 3 // a part had not stopped within SHUTDOWN_TIMEOUT
)

// ExitCode is an error with which a part of a service ends the program: that has this exit code then, unless something failed. The part
// has done what it could, and has said in the log what it could not.
type ExitCode int //nolint:errname // a code first, and an error only on its way

func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Service describes one program. C is its configuration struct, which embeds Common.
type Service[C any] struct {
	// Name is the program's name, as in "lmtp-collector".
	Name string
	// About is one sentence for -h.
	About string
	// Defaults returns the configuration before any layer is applied, with at least Common.AdminAddr.
	Defaults func() C
	// Prefixes are further prefixes of variables that are ours, beside the sections' names and without the "_": a variable
	// that begins with one and isn't known is refused, because it is probably misspelt.
	Prefixes []string
	// ExitCodes are the service's own, as they read on in -h: "4 something was left behind".
	ExitCodes []string
	// Run builds the parts, registers them with Daemon.Go and Daemon.Watch, and returns when all are started; it must not
	// block after that. Its context ends when the stop begins: it is for the start itself, parts have their own. An error
	// ends the service with exit code 1.
	Run func(ctx context.Context, d *Daemon, cfg C) error
	// Metrics registers with reg all families that Run registers with Daemon.Metrics, by the same calls, and starts nothing. The command
	// metrics and docs/monitoring.md are made from them. nil: there are none.
	Metrics func(cfg C, reg prometheus.Registerer) error
	// Commands are the subcommands beside config, metrics, healthcheck, version and help.
	Commands []Command[C]
}

// Command is a subcommand of a service.
type Command[C any] struct {
	// Name is the word on the command line.
	Name string
	// About is a phrase for -h.
	About string
	// Usage tells in -h what may follow the name: "[--count N] PATH…".
	Usage string
	// Flags adds the flags that only this command has; nil: there are none. No other command, and no setting, may have one of
	// the same name.
	Flags func(*pflag.FlagSet)
	// Run does it and returns the exit code. args are the arguments after the name, less the flags: those of settings are in
	// cfg already, those of Flags in the variables that were given there. The context ends at the first SIGINT or SIGTERM.
	Run func(ctx context.Context, p Process, cfg C, args []string) int
}

// Process is what a program has of the world, so that a test can boot the same Main with another one.
type Process struct {
	Args           []string // without the program's name
	Env            []string // as os.Environ returns it
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal // nil: SIGINT and SIGTERM of the process itself
}

// OSProcess returns the real process.
func OSProcess() Process {
	return Process{Args: os.Args[1:], Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
}

// Daemon is the running service, as its Run sees it. All methods are safe for concurrent use.
type Daemon struct {
	Name, Version string
	// Log writes to stderr; events carry the field service.
	Log zerolog.Logger
	// Metrics is what /metrics shows; it holds those of Go, of the process, spamtraps_build_info and spamtraps_ready already.
	Metrics *prometheus.Registry

	group *group
	ready *readiness
	page  *statusPage
	admin *admin
}

// Go starts a part of the service. The first part that returns, with an error or without, stops all others; an error or a
// panic makes the exit code 1. On stop the parts end in the reverse order of their start: the context of the last is
// cancelled and it is waited for before the one before it is told, so that intake stops before the publisher that it needs.
// The error of a cancelled context is no failure then. The part must return soon after its context ended: all of them
// together have SHUTDOWN_TIMEOUT. After the stop has begun, Go starts nothing.
func (d *Daemon) Go(name string, run func(ctx context.Context) error) { d.group.start(name, run) }

// Watch adds a line to /readyz, or replaces that of the same name. The check is called at each request, from several
// goroutines at once, and must neither block nor be slow.
func (d *Daemon) Watch(name string, check func() Health) { d.ready.watch(name, check) }

// AdminAddr returns the address that /livez, /readyz and /metrics are served at: with port 0 in ADMIN_ADDR the port is the real one.
func (d *Daemon) AdminAddr() string { return d.admin.addr() }

// Health is what a check says about one thing that the service needs.
type Health struct {
	// OK tells whether the service can do its work as far as this goes.
	OK bool
	// Text says how it is, in words for an operator: "amqp: cannot reach rabbitmq:5672 for 12 s: connection refused".
	Text string
}

// version is set when linking: -ldflags "-X spamtraps.internal/libs/daemon.version=1.2.3".
var version = "dev"

// Version returns the version that the program was linked with, "dev" when it was linked without.
func Version() string { return version }
