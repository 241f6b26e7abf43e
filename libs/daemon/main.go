package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/pflag"
)

// Main is the whole life of a program, from its arguments to its exit code; see the package's documentation for what it does
// and for the codes. It returns when everything that it started has ended, but for a part that missed SHUTDOWN_TIMEOUT.
//
//	func main() { os.Exit(daemon.Main(service, daemon.OSProcess())) }
func Main[C any](svc Service[C], p Process) int {
	prog := newProgram(svc, p)
	line, err := parseLine(p.Args, prog.loader, prog.commands)
	if errors.Is(err, pflag.ErrHelp) {
		return prog.helpFor(p.Args)
	}
	if err != nil {
		return prog.refuse(err.Error())
	}
	cmd, problem := line.choose(prog.commands)
	if problem != "" {
		return prog.refuse(problem)
	}
	return cmd.run(line)
}

// program is one call of Main: a service, its process, and the configuration on its way.
type program[C any] struct {
	svc    Service[C]
	p      Process
	cfg    C
	common *Common // of cfg
	loader *loader // into cfg

	commands []command
	markdown bool   // config --markdown, metrics --markdown
	url      string // healthcheck --url
}

func newProgram[C any](svc Service[C], p Process) *program[C] {
	prog := &program[C]{svc: svc, p: p, cfg: svc.Defaults()}
	embeds, ok := any(&prog.cfg).(interface{ common() *Common })
	if !ok {
		panic(fmt.Sprintf("daemon: %T does not embed daemon.Common", prog.cfg))
	}
	prog.common = embeds.common()
	prog.common.fillDefaults()
	prog.loader = newLoader(&prog.cfg, svc.Prefixes)
	prog.commands = prog.allCommands()
	return prog
}

// command is a word of the command line; the one without a name runs the service.
type command struct {
	name, about string
	usage       string         // what may follow the name
	flags       *pflag.FlagSet // that only this command has
	takesArgs   bool
	run         func(commandLine) int
}

func (prog *program[C]) allCommands() []command {
	list := []command{
		{name: "", run: prog.serve},
		{name: "config", usage: "[--markdown]", run: prog.config, about: "show the effective configuration and where each value comes from"},
		{name: "metrics", usage: "[--markdown]", run: prog.metrics, about: "list what /metrics shows, with what it means"},
		{name: "healthcheck", usage: "[--url URL]", run: prog.healthcheck, about: "ask the running service for its /readyz; 0 is ready, 1 is not"},
		{name: "version", run: prog.version, about: "show the version"},
		{name: "help", run: prog.help, about: "show this"},
	}
	for i := range list {
		list[i].flags = newFlags()
	}
	list[1].flags.BoolVar(&prog.markdown, "markdown", false, "")
	list[2].flags.BoolVar(&prog.markdown, "markdown", false, "")
	list[3].flags.StringVar(&prog.url, "url", "", "")
	for _, cmd := range prog.svc.Commands {
		own := command{name: cmd.Name, about: cmd.About, usage: cmd.Usage, takesArgs: true, flags: newFlags(), run: prog.custom(cmd)}
		if cmd.Flags != nil {
			cmd.Flags(own.flags)
		}
		list = append(list, own)
	}
	return list
}

func newFlags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

// configured calls run with the configuration loaded, or refuses what is wrong with it.
func (prog *program[C]) configured(line commandLine, run func() int) int {
	if problems := prog.loader.load(prog.common, prog.p.Env, line.flags); len(problems) > 0 {
		return prog.refuse(problems...)
	}
	return run()
}

func (prog *program[C]) config(line commandLine) int {
	if prog.markdown { // the defaults of the documentation are nobody's settings
		printMarkdown(prog.p.Stdout, prog.loader.sections)
		return ExitOK
	}
	return prog.configured(line, func() int {
		printConfig(prog.p.Stdout, prog.loader.sections)
		return ExitOK
	})
}

// metrics needs no configuration: which families there are does not depend on it.
func (prog *program[C]) metrics(commandLine) int {
	families, err := Families(prog.svc)
	if err != nil {
		fmt.Fprintf(prog.p.Stderr, "%s: %v\n", prog.svc.Name, err)
		return ExitFailed
	}
	printFamilies(prog.p.Stdout, families, prog.markdown)
	return ExitOK
}

// healthcheck leaves it to the service itself to say what is wrong with the configuration, and needs nothing that Validate settles.
func (prog *program[C]) healthcheck(line commandLine) int {
	prog.loader.apply(prog.common, prog.p.Env, line.flags)
	url := prog.url
	if url == "" {
		url = readyURL(prog.common.AdminAddr)
	}
	return healthcheck(context.Background(), prog.p, url)
}

func (prog *program[C]) version(commandLine) int {
	fmt.Fprintln(prog.p.Stdout, prog.svc.Name, Version())
	return ExitOK
}

func (prog *program[C]) help(commandLine) int {
	printHelp(prog.p.Stdout, prog.svc.Name, prog.svc.About, prog.commands, prog.loader.sections, prog.svc.ExitCodes)
	return ExitOK
}

// helpFor shows the help of the command with flags of its own that the arguments name, else everything.
func (prog *program[C]) helpFor(args []string) int {
	for _, cmd := range prog.commands {
		if cmd.takesArgs && slices.Contains(args, cmd.name) {
			cmd.printHelp(prog.p.Stdout, prog.svc.Name)
			return ExitOK
		}
	}
	return prog.help(commandLine{})
}

func (prog *program[C]) custom(cmd Command[C]) func(commandLine) int {
	return func(line commandLine) int {
		return prog.configured(line, func() int {
			signals, release := prog.p.signals()
			defer release()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() {
				select {
				case <-signals:
					cancel()
					release() // so that the next one ends the process
				case <-ctx.Done():
				}
			}()
			return cmd.Run(ctx, prog.p, prog.cfg, line.args)
		})
	}
}

// refuse prints the problems of the configuration or the command line. The log's own settings may be among them, so it is
// plain text, a sentence a line, whatever the refused values hold.
func (prog *program[C]) refuse(problems ...string) int {
	for _, problem := range problems {
		fmt.Fprintf(prog.p.Stderr, "%s: %s\n", prog.svc.Name, escapeUnsafe([]byte(problem)))
	}
	return ExitRefused
}

// signals returns where SIGINT and SIGTERM arrive, and what ends that.
func (p Process) signals() (<-chan os.Signal, func()) {
	if p.Signals != nil {
		return p.Signals, func() {}
	}
	signals := make(chan os.Signal, 2) // the second one means: at once
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	return signals, func() { signal.Stop(signals) }
}
