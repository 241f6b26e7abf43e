package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hostile is what a mail's author would put into a log: colours, a forged line, C1, line separators, bidi and invisible characters.
const hostile = "\x1b[31mred\r\nforged\tline\x7f" +
	"\u0085nel\u009bcsi\u2028ls\u2029ps\u202erlo\u2066iso\u200bzw\ufeffbom\U000e0041tag\xffraw é漢😀"

// acting are the characters of hostile that do something, of which none may be left.
const acting = "\x1b\r\n\t\x7f\u0085\u009b\u2028\u2029\u202e\u2066\u200b\ufeff\U000e0041\ufffd"

func TestHostileValuesStayInTheirLine(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			log := newLogger(&out, &Common{LogLevel: "debug", LogFormat: format}, "trap")
			log.Info().Str("value", hostile).Str(hostile, "key").Err(errors.New(hostile)).Strs("list", []string{hostile}).Msg("event " + hostile)
			line, ended := strings.CutSuffix(out.String(), "\n")
			if !ended || strings.ContainsAny(line, acting) {
				t.Errorf("unsafe: %q", line)
			}
			if !strings.Contains(line, "é漢😀") {
				t.Errorf("harmless characters are gone: %q", line)
			}
		})
	}
}

func TestJSONKeepsTheValue(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out, &Common{LogLevel: "info"}, "trap")
	log.Info().Str("value", hostile).Send()
	log.Debug().Msg("below the level")
	var event struct{ Value, Service, Level, Time string }
	if err := json.Unmarshal(out.Bytes(), &event); err != nil {
		t.Fatalf("%v in %s", err, &out)
	}
	if want := strings.ReplaceAll(hostile, "\xff", "\ufffd"); event.Value != want {
		t.Errorf("value %q, want %q", event.Value, want)
	}
	at, err := time.Parse(time.RFC3339Nano, event.Time)
	if err != nil || !strings.HasSuffix(event.Time, "Z") || time.Since(at) > time.Minute {
		t.Errorf("time %q: %v", event.Time, err)
	}
	if event.Service != "trap" || event.Level != "info" {
		t.Errorf("service %q, level %q", event.Service, event.Level)
	}
}

func TestConsole(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out, &Common{LogLevel: "info", LogFormat: "console"}, "trap")
	log.Info().Str("key", "value").Msg("event")
	if want := "Z INF event key=value service=trap\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("logged %q, want …%q", &out, want)
	}
}

func TestLogThatCannotBeWritten(t *testing.T) {
	w := safeWriter{out: writerFunc(func([]byte) (int, error) { return 0, errors.New("full") })}
	if n, err := w.Write([]byte("x\n")); n != 0 || err == nil {
		t.Errorf("Write() = %d, %v", n, err)
	}
}

func TestTerminal(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	plain, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if !IsTerminal(terminal) || IsTerminal(plain) || IsTerminal(new(bytes.Buffer)) {
		t.Error("a terminal is one, a file and a buffer are none")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func BenchmarkLog(b *testing.B) {
	log := newLogger(writerFunc(func(p []byte) (int, error) { return len(p), nil }), &Common{LogLevel: "info"}, "trap")
	for b.Loop() {
		log.Info().Str("mail_from", "someone@example.org").Int("size", 10240).Msg("received")
	}
}
