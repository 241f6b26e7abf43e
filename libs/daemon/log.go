package daemon

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// zerolog has its time format in package variables; they are set once, before any logger exists.
func init() {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	zerolog.TimestampFunc = func() time.Time { return time.Now().UTC() }
}

// newLogger makes the service's logger. Strangers write into mails and so into log values: whatever they send, an event stays
// one line, and no character in it acts on a terminal or reorders what a reader sees.
func newLogger(out io.Writer, c *Common, service string) zerolog.Logger {
	level, err := zerolog.ParseLevel(c.LogLevel)
	if err != nil {
		level = zerolog.InfoLevel // oneof has refused it already
	}
	console := c.LogFormat == "console" || (c.LogFormat == "" && IsTerminal(out))
	return zerolog.New(logWriter(out, console)).Level(level).With().Timestamp().Str("service", service).Logger()
}

func logWriter(out io.Writer, console bool) io.Writer {
	safe := safeWriter{out: out}
	if !console {
		return safe
	}
	// The console's colours are escape sequences: without them every one that is left came from a stranger.
	return zerolog.ConsoleWriter{Out: safe, NoColor: true, TimeFormat: time.RFC3339Nano, TimeLocation: time.UTC}
}

// IsTerminal tells whether a person reads what is written to out: a terminal, or what says by a method of this name that it writes to one.
func IsTerminal(out io.Writer) bool {
	if screen, ok := out.(interface{ IsTerminal() bool }); ok {
		return screen.IsTerminal()
	}
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// safeWriter writes one event a call and escapes all of Unicode that is control, format or a line end, as JSON would: in an
// event of JSON, where zerolog leaves some of them raw, the value stays the same (U+0085, U+009B, U+2028, U+202E, …).
type safeWriter struct{ out io.Writer }

// Write reports the length of the event as given, which is what its caller compares with.
func (w safeWriter) Write(event []byte) (int, error) {
	line, end := bytes.CutSuffix(event, []byte("\n"))
	if bytes.ContainsFunc(line, unsafe) {
		line = escapeUnsafe(line)
		if end {
			line = append(line, '\n')
		}
	} else {
		line = event
	}
	if _, err := w.out.Write(line); err != nil {
		return 0, fmt.Errorf("write log: %w", err)
	}
	return len(event), nil
}

// Printable returns text of a stranger with nothing in it that acts on a terminal or begins a line, escaped as in the log.
func Printable(text string) string { return string(escapeUnsafe([]byte(text))) }

func unsafe(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' || r == 0x7f
	}
	return r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

func escapeUnsafe(line []byte) []byte {
	safe := make([]byte, 0, len(line)+16)
	for _, r := range string(line) {
		switch high, low := utf16.EncodeRune(r); {
		case !unsafe(r):
			safe = utf8.AppendRune(safe, r)
		case high != unicode.ReplacementChar: // beyond the first 64 Ki, as JSON has it
			safe = fmt.Appendf(safe, `\u%04x\u%04x`, high, low)
		default:
			safe = fmt.Appendf(safe, `\u%04x`, r)
		}
	}
	return safe
}
