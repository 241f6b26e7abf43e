package daemon

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

// commandLine is what the arguments say; the flags aren't applied yet, because the layers below come first.
type commandLine struct {
	command string
	args    []string // after the command
	flags   []flagText
	// own are the flags that were given and belong to commands.
	own []string
}

// parseLine reads the arguments: flags may stand anywhere, the first other word is the command. The error of -h is pflag.ErrHelp.
func parseLine(args []string, l *loader, commands []command) (commandLine, error) {
	var line commandLine
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	settings := make(map[string]*setting)
	for s := range l.all {
		if s.flag == "" {
			continue
		}
		settings[s.flag] = s
		flags.VarP(s, s.flag, s.short, s.desc)
		if s.isBool() {
			flags.Lookup(s.flag).NoOptDefVal = "true"
		}
	}
	for _, cmd := range commands {
		flags.AddFlagSet(cmd.flags)
	}

	err := flags.ParseAll(args, func(f *pflag.Flag, text string) error {
		s, ok := settings[f.Name]
		if !ok {
			line.own = append(line.own, f.Name)
			return f.Value.Set(text)
		}
		line.flags = append(line.flags, flagText{s, text})
		return nil
	})
	if err != nil {
		return line, lineError(err)
	}
	if words := flags.Args(); len(words) > 0 {
		line.command, line.args = words[0], words[1:]
	}
	return line, nil
}

// lineError keeps to the name of a flag: its value may be a password for a flag that doesn't exist.
func lineError(err error) error {
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &invalid):
		return fmt.Errorf("--%s cannot be %s", invalid.GetFlag().Name, quote(invalid.GetValue()))
	case errors.Is(err, pflag.ErrHelp):
		return err
	default:
		return fmt.Errorf("%w (-h shows what there is)", err)
	}
}

// choose finds the command of a line, and says what doesn't fit it.
func (line commandLine) choose(commands []command) (command, string) {
	var chosen *command
	known := make(map[string]bool)
	for i, cmd := range commands {
		known[cmd.name] = true
		if cmd.name == line.command {
			chosen = &commands[i]
		}
	}
	if chosen == nil {
		return command{}, quote(line.command) + " is no command" + suggestion(line.command, known) + " (-h shows what there is)"
	}
	for _, flag := range line.own {
		if chosen.flags.Lookup(flag) == nil {
			return command{}, fmt.Sprintf("--%s is for another command (-h shows which)", flag)
		}
	}
	if len(line.args) > 0 && !chosen.takesArgs {
		return command{}, fmt.Sprintf("%s takes no argument %s", chosen.name, quote(line.args[0]))
	}
	return *chosen, ""
}
