package daemon

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/rs/zerolog"
)

// flags shows a setting's flags: "-f, --feed-config".
func (s *setting) flags() string {
	switch {
	case s.flag == "":
		return ""
	case s.short == "":
		return "--" + s.flag
	default:
		return "-" + s.short + ", --" + s.flag
	}
}

// helpName is the variable; a setting that only the feed file has goes by its key there.
func (s *setting) helpName() string {
	if s.variable == "" && s.flag == "" {
		return s.path() + ":"
	}
	return s.variable
}

// description adds to desc what the other tags say.
func (s *setting) description() string {
	text := s.desc
	if len(s.oneof) > 0 {
		text += " One of: " + strings.Join(s.oneof, ", ") + "."
	}
	if s.empty != "" && !isEmpty(s.initial) {
		text += " Empty: " + s.empty + "."
	}
	if s.isSecret() && s.variable != "" {
		text += " " + s.variable + "_FILE names a file that holds it."
	}
	return strings.TrimSpace(text)
}

// title is the heading of a section.
func (sec *section) title() string {
	if sec.name == "" {
		return "Service"
	}
	return sec.desc
}

func printHelp(out io.Writer, name, about string, commands []command, sections []*section, own []string) {
	fmt.Fprintf(out, "%s: %s\n\nUsage: %s [flags] [command]\n\nWithout a command it runs until SIGTERM or SIGINT. Commands:\n\n", name, about, name)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, cmd := range commands[1:] {
		fmt.Fprintf(table, "  %s\t%s\n", cmd.line(), cmd.about)
	}
	fmt.Fprintf(table, "\nSettings, as flag, variable, default and meaning. Flag > variable > feed file (amqp.port for AMQP_PORT) > default.\n")
	for _, sec := range sections {
		fmt.Fprintf(table, "\n%s:\n", sec.title())
		for _, s := range sec.settings {
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", s.flags(), s.helpName(), s.defaultText(), s.description())
		}
	}
	_ = table.Flush()
	fmt.Fprintf(out, "\nExit codes: %s.\n", strings.Join(append(slices.Clone(exitCodes), own...), ", "))
}

var exitCodes = []string{
	"0 a clean stop", "1 failed while running", "2 configuration or command line refused", "3 not stopped within SHUTDOWN_TIMEOUT",
}

func (c command) line() string { return strings.TrimSpace(c.name + " " + c.usage) }

// printHelp shows one command with its flags.
func (c command) printHelp(out io.Writer, service string) {
	fmt.Fprintf(out, "%s %s: %s\n", service, c.line(), c.about)
	if flags := c.flags.FlagUsages(); flags != "" {
		fmt.Fprintf(out, "\n%s", flags)
	}
	fmt.Fprintf(out, "\nThe settings of the service hold as well: %s -h shows them.\n", service)
}

// printMarkdown prints the tables of docs/config.md.
func printMarkdown(out io.Writer, sections []*section) {
	for i, sec := range sections {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "### %s\n\n| variable | YAML key | flag | default | meaning |\n|---|---|---|---|---|\n", sec.title())
		for _, s := range sec.settings {
			fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", code(s.variable), code(s.keyPath()), code(s.flags()), s.markdownDefault(), cell(s.description()))
		}
	}
}

func (s *setting) markdownDefault() string {
	if s.empty != "" && isEmpty(s.initial) {
		return cell(s.defaultText())
	}
	return code(s.defaultText())
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + cell(text) + "`"
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// keyPath is path, or "" for a setting that has no place in the YAML file.
func (s *setting) keyPath() string {
	if s.key == "" {
		return ""
	}
	return s.path()
}

// printConfig prints the effective configuration as a feed file, each value with where it comes from. What a feed file cannot
// say is a comment.
func printConfig(out io.Writer, sections []*section) {
	for _, sec := range sections {
		indent := ""
		if sec.name != "" {
			fmt.Fprintf(out, "\n%s:\n", strings.ToLower(sec.name))
			indent = "  "
		}
		for _, s := range sec.settings {
			fmt.Fprintf(out, "%s%s\n", indent, s.yamlLine())
		}
	}
}

func (s *setting) yamlLine() string {
	from := "default"
	if s.from.layer != byDefault {
		from = s.from.name
	}
	switch path := s.secretFile(); {
	case s.silenced != nil:
		return fmt.Sprintf("# %s: see %s", s.key, s.silenced.writtenAs())
	case s.key == "":
		return fmt.Sprintf("# %s=%s # %s", s.title(), s.String(), from)
	case path != "":
		return fmt.Sprintf("%s_file: %s # %s", s.key, strconv.Quote(path), from)
	case s.empty != "" && isEmpty(s.field):
		return fmt.Sprintf("%s: \"\" # %s: %s", s.key, from, s.empty)
	case s.String() == "":
		return fmt.Sprintf("# %s: not set", s.key)
	default:
		return fmt.Sprintf("%s: %s # %s", s.key, s.yamlValue(), from)
	}
}

// yamlValue quotes text, so that no other reader of YAML takes it for something else.
func (s *setting) yamlValue() string {
	switch {
	case s.isList():
		items := showList(s.field, s.unit)
		for i := range items {
			items[i] = strconv.Quote(items[i])
		}
		return "[" + strings.Join(items, ", ") + "]"
	case s.isPlain():
		return s.String()
	default:
		return strconv.Quote(s.String())
	}
}

// shownSettings are the effective settings for the log, without those that another one silences.
func shownSettings(sections []*section) *zerolog.Event {
	settings := zerolog.Dict()
	for _, sec := range sections {
		for _, s := range sec.settings {
			switch path := s.secretFile(); {
			case s.silenced != nil:
			case path != "":
				settings.Str(s.title()+"_FILE", path)
			default:
				settings.Str(s.title(), s.String())
			}
		}
	}
	return settings
}
