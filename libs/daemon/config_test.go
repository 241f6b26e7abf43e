package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spamtraps.internal/libs/daemon"
)

// run calls Main as a shell would and returns the exit code and both streams.
func run(t *testing.T, args, env []string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	svc := service(func(context.Context, *daemon.Daemon, trapConfig) error {
		t.Error("the service was started")
		return errors.New("not in this test")
	})
	code = daemon.Main(svc, daemon.Process{Args: args, Env: env, Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

// file writes a file in the directory of the test, where FILE in a row's text stands for its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRefusals has one row for each thing that can be wrong: the sentences are all that is printed.
func TestRefusals(t *testing.T) {
	empty := file(t, "password", "\n")
	for _, row := range []struct {
		name string
		args []string
		env  []string
		yaml string
		want []string // FILE is the feed file
	}{
		{name: "number", env: []string{"AMQP_PORT=many"}, want: []string{`AMQP_PORT must be a whole number, not "many"`}},
		{name: "number with unit", env: []string{"AMQP_PORT=5k"}, want: []string{`AMQP_PORT must be a whole number, not "5k"`}},
		{
			name: "number too large", env: []string{"AMQP_PORT=99999999999999999999"},
			want: []string{`AMQP_PORT is out of range: "99999999999999999999"`},
		},
		{name: "unsigned", args: []string{"-p", "-1"}, want: []string{`--port must be a whole number from 0 to 65535, not "-1"`}},
		{
			name: "unsigned too large", args: []string{"--port=65536"},
			want: []string{`--port must be a whole number from 0 to 65535, not "65536"`},
		},
		{name: "float", env: []string{"LMTP_RATIO=NaN"}, want: []string{`LMTP_RATIO must be a number, not "NaN"`}},
		{name: "bool", env: []string{"AMQP_TLS=maybe"}, want: []string{`AMQP_TLS must be true or false, not "maybe"`}},
		{
			name: "duration without unit", env: []string{"AMQP_CONFIRM_TIMEOUT=30"},
			want: []string{`AMQP_CONFIRM_TIMEOUT must be a time with its unit, like 500ms, 30s or 5m, not "30"`},
		},
		{
			name: "ambiguous bytes", env: []string{"AMQP_IN_FLIGHT_BYTES=16M"},
			want: []string{`AMQP_IN_FLIGHT_BYTES must be a number of bytes, like 16MiB or 1000000, not "16M"`},
		},
		{
			name: "negative bytes", env: []string{"AMQP_IN_FLIGHT_BYTES=-1"},
			want: []string{`AMQP_IN_FLIGHT_BYTES must be a number of bytes, like 16MiB or 1000000, not "-1"`},
		},
		{
			name: "bytes beyond 63 bits", env: []string{"AMQP_IN_FLIGHT_BYTES=8388608TiB"},
			want: []string{`AMQP_IN_FLIGHT_BYTES must be a number of bytes, like 16MiB or 1000000, not "8388608TiB"`},
		},
		{
			name: "text", env: []string{"LMTP_PEER=nowhere"},
			want: []string{`LMTP_PEER cannot be "nowhere": ParseAddr("nowhere"): unable to parse IP`},
		},
		{name: "one of", env: []string{"LOG_FORMAT=xml"}, want: []string{`LOG_FORMAT must be json or console, not "xml"`}},
		{name: "list with a hole", env: []string{"AMQP_HOST=a,,b"}, want: []string{`AMQP_HOST has an empty item`}},
		{
			name: "item of a list", env: []string{"LMTP_CODES=1,x"},
			want: []string{`LMTP_CODES has an item that must be a whole number, not "x"`},
		},
		{
			name: "item that isn't one of", env: []string{"LMTP_MODES=fast, furious"},
			want: []string{`LMTP_MODES must be fast or slow, not "furious"`},
		},
		{
			name: "long value is cut", env: []string{"AMQP_PORT=" + strings.Repeat("9x", 100)},
			want: []string{`AMQP_PORT must be a whole number, not "` + strings.Repeat("9x", 20) + `"…`},
		},
		{
			name: "value with control characters", env: []string{"AMQP_PORT=\x1b[2J\n\u202e"},
			want: []string{`AMQP_PORT must be a whole number, not "\x1b[2J\n\u202e"`},
		},

		{name: "empty variable", env: []string{"AMQP_VHOST="}, want: []string{`AMQP_VHOST is empty: give a value or leave it out`}},
		{
			name: "empty file variable", env: []string{"AMQP_SECRET_FILE="},
			want: []string{`AMQP_SECRET_FILE is empty: name a file or leave it out`},
		},
		{
			name: "empty flag", args: []string{"--feed-config="}, env: []string{"AMQP_PORT="},
			want: []string{`AMQP_PORT is empty: give a value or leave it out`},
		},
		{name: "empty key", yaml: "amqp:\n  vhost:\n", want: []string{`FILE:2: amqp.vhost is empty: give a value or leave it out`}},

		{
			name: "misspelt variable", env: []string{"AMQP_ROUTINGKEY=x"},
			want: []string{`AMQP_ROUTINGKEY is no setting: did you mean AMQP_ROUTING_KEY?`},
		},
		{
			name: "misspelt file variable", env: []string{"AMQP_SECRET_FILES=x"},
			want: []string{`AMQP_SECRET_FILES is no setting: did you mean AMQP_SECRET_FILE?`},
		},
		{name: "variable like nothing", env: []string{"LMTP_SOMETHING_ELSE=x"}, want: []string{`LMTP_SOMETHING_ELSE is no setting`}},
		{
			name: "variable with a further prefix", env: []string{"MAILDIR_KEPT=x"},
			want: []string{`MAILDIR_KEPT is no setting: did you mean MAILDIR_KEEP?`},
		},
		{name: "service link", env: []string{"AMQP_PORT=tcp://10.0.0.7:5672", "AMQP_SERVICE_HOST=10.0.0.7"}, want: []string{
			`AMQP_PORT must be a whole number, not "tcp://10.0.0.7:5672"; Kubernetes makes such variables for a Service of that name: ` +
				`set enableServiceLinks: false in the pod`,
			`AMQP_SERVICE_HOST is no setting; Kubernetes makes such variables for a Service of that name: set enableServiceLinks: false in the pod`,
		}},

		{
			name: "secret twice", env: []string{"AMQP_SECRET=a", "AMQP_SECRET_FILE=b"},
			want: []string{`AMQP_SECRET and AMQP_SECRET_FILE are both set: choose one`},
		},
		{
			name: "secret twice in YAML", yaml: "amqp: {secret: a,\n secret_file: b}\n",
			want: []string{`FILE:1: amqp.secret and FILE:2: amqp.secret_file are both set: choose one`},
		},
		{
			name: "secret's file missing", env: []string{"AMQP_SECRET_FILE=/nonexistent/password"},
			want: []string{`AMQP_SECRET_FILE names a file that cannot be read: open /nonexistent/password: no such file or directory`},
		},
		{
			name: "secret's file empty", env: []string{"AMQP_SECRET_FILE=" + empty},
			want: []string{`AMQP_SECRET_FILE names a file that is empty: ` + empty},
		},

		{
			name: "over in one layer", env: []string{"AMQP_URL=amqp://a", "AMQP_HOST=a"},
			want: []string{`AMQP_URL and AMQP_HOST contradict each other, because the first says what the second says: choose one`},
		},
		{
			name: "over by file in one layer", env: []string{"AMQP_URL=amqp://a", "AMQP_SECRET_FILE=" + empty},
			want: []string{`AMQP_URL and AMQP_SECRET_FILE contradict each other, because the first says what the second says: choose one`},
		},
		{
			name: "over from below", env: []string{"AMQP_PORT=1"}, yaml: "amqp:\n  url: amqp://a\n",
			want: []string{`FILE:2: amqp.url and AMQP_PORT contradict each other, because the first says what the second says: choose one`},
		},

		{name: "validate names the variable", env: []string{"AMQP_PORT=0"}, want: []string{`AMQP_PORT must be between 1 and 65535`}},
		{name: "validate names the key", yaml: "amqp:\n\n  port: 0\n", want: []string{`FILE:3: amqp.port must be between 1 and 65535`}},
		{name: "validate names the flag", args: []string{"-p", "1"}, want: []string{`--port must not be 1`}},
		{
			name: "validate of the whole", env: []string{"AMQP_IDENT=same", "AMQP_VHOST=same"},
			want: []string{`AMQP_VHOST must not be AMQP_IDENT`},
		},
		{name: "validate of no setting", env: []string{"SENSOR=alone"}, want: []string{`MAILDIR must not be alone`}},
		{
			name: "validate says nothing of a refused value", env: []string{"AMQP_PORT=none"},
			want: []string{`AMQP_PORT must be a whole number, not "none"`},
		},

		{name: "admin address", env: []string{"ADMIN_ADDR=9602"}, want: []string{`ADMIN_ADDR must be HOST:PORT or :PORT, not "9602"`}},
		{name: "admin port", env: []string{"ADMIN_ADDR=:70000"}, want: []string{`ADMIN_ADDR must end in a port from 0 to 65535, not "70000"`}},
		{name: "shutdown timeout", env: []string{"SHUTDOWN_TIMEOUT=0s"}, want: []string{`SHUTDOWN_TIMEOUT must be more than 0s`}},

		{
			name: "feed file missing", env: []string{"FEED_CONFIG=/nonexistent.yml"},
			want: []string{`FEED_CONFIG must name a file that can be read: open /nonexistent.yml: no such file or directory`},
		},
		{
			name: "control characters in a path", env: []string{"FEED_CONFIG=/none\x1b[2J\n"},
			want: []string{`FEED_CONFIG must name a file that can be read: open /none\u001b[2J\u000a: no such file or directory`},
		},
		{
			name: "feed file of the flag missing", args: []string{"-f", "/nonexistent.yml"}, env: []string{"FEED_CONFIG=/other.yml"},
			want: []string{`--feed-config must name a file that can be read: open /nonexistent.yml: no such file or directory`},
		},
		{
			name: "feed file without end", args: []string{"-f/dev/zero"},
			want: []string{`--feed-config must name a file that can be read: /dev/zero is larger than 1MiB`},
		},
		{name: "unknown key", yaml: "amqp:\n  prot: 1\n", want: []string{`FILE:2: amqp.prot is no setting: did you mean amqp.port?`}},
		{name: "unknown key at the top", yaml: "sensr: x\n", want: []string{`FILE:1: sensr is no setting: did you mean sensor?`}},
		{name: "unknown section", yaml: "ampq:\n  port: 1\n", want: []string{`FILE:1: ampq is no setting: did you mean amqp?`}},
		{name: "strange key", yaml: "\"a\\e\": 1\n", want: []string{`FILE:1: "a\x1b" is no setting`}},
		{name: "merge key", yaml: "hpfeeds: &h {port: 1}\namqp:\n  <<: *h\n", want: []string{`FILE:3: amqp."<<" is no setting`}},
		{name: "key of a flag only", yaml: "feed_config: x\n", want: []string{`FILE:1: feed_config is no setting`}},
		{
			name: "duplicate key", yaml: "amqp:\n  host: a\n  port: 1\n  host: b\n",
			want: []string{`FILE:4: amqp.host is there twice, first in line 2`},
		},
		{
			name: "duplicate section", yaml: "amqp:\n  host: a\namqp:\n  port: 1\n",
			want: []string{`FILE:3: amqp is there twice, first in line 1`},
		},
		{name: "value for a section", yaml: "amqp: hunter2\n", want: []string{`FILE:1: amqp must be a map of settings, not a single value`}},
		{name: "list for a value", yaml: "amqp:\n  port: [1]\n", want: []string{`FILE:2: amqp.port must be one value, not a list`}},
		{
			name: "map for a secret's file", yaml: "amqp:\n  secret_file: {a: b}\n",
			want: []string{`FILE:2: amqp.secret_file must be the path of a file, not a map`},
		},
		{
			name: "map in a list", yaml: "amqp:\n  host: [a, {b: c}]\n",
			want: []string{`FILE:2: amqp.host must be a list of values, and one is a map`},
		},
		{
			name: "nothing in a list", yaml: "amqp:\n  host:\n    - a\n    -\n",
			want: []string{`FILE:2: amqp.host must be a list of values, and one is nothing`},
		},
		{name: "comma in a list", yaml: "amqp:\n  host: ['a,b']\n", want: []string{`FILE:2: amqp.host has an item with a comma in it`}},
		{
			name: "mailbox file for a feed file", yaml: "---\n- username: a\n",
			want: []string{`FILE:2: must hold a map of settings, like "amqp:", not a list`},
		},
		{
			name: "two documents", yaml: "sensor: a\n---\nsensor: b\n",
			want: []string{`FILE:2: must hold one YAML document, and here begins another`},
		},
		{
			name: "no YAML", yaml: "sensor: a\nlog_level: b: c\n",
			want: []string{`FILE:2: is not YAML: mapping values are not allowed in this context`},
		},
		{
			name: "secret with an asterisk", yaml: "amqp:\n  secret: *hunter2\n",
			want: []string{`FILE:2: is not YAML: a value that begins with * must be in quotes`},
		},
		{name: "binary", yaml: "sensor: \x01\n", want: []string{`FILE: is not YAML: control characters are not allowed (value: 1)`}},
		{name: "unknown type", yaml: "type: kafka\n", want: []string{`FILE:1: type must be amqp or hpfeeds, not "kafka"`}},

		{
			name: "unknown command", args: []string{"confg"},
			want: []string{`"confg" is no command: did you mean config? (-h shows what there is)`},
		},
		{name: "unknown flag", args: []string{"--secret=hunter2"}, want: []string{`unknown flag: --secret (-h shows what there is)`}},
		{name: "unknown short flag", args: []string{"-q"}, want: []string{`unknown shorthand flag: 'q' in -q (-h shows what there is)`}},
		{name: "flag without its value", args: []string{"-f"}, want: []string{`flag needs an argument: 'f' in -f (-h shows what there is)`}},
		{name: "stray argument", args: []string{"config", "now"}, want: []string{`config takes no argument "now"`}},
		{
			name: "another command's flag", args: []string{"--url=http://localhost"},
			want: []string{`--url is for another command (-h shows which)`},
		},
		{
			name: "a flag of the service's command", args: []string{"config", "--upper"},
			want: []string{`--upper is for another command (-h shows which)`},
		},

		{
			name: "all at once", args: []string{"-p", "x"}, env: []string{"AMQP_PORT=x", "AMQP_NONE=x", "LMTP_LISTEN="},
			yaml: "amqp:\n  tls: x\n  none: y\n",
			want: []string{
				`FILE:2: amqp.tls must be true or false, not "x"`,
				`FILE:3: amqp.none is no setting`,
				`AMQP_PORT must be a whole number, not "x"`,
				`LMTP_LISTEN is empty: give a value or leave it out`,
				`AMQP_NONE is no setting`,
				`--port must be a whole number from 0 to 65535, not "x"`,
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			env, path := row.env, ""
			if row.yaml != "" {
				path = file(t, "feed.yml", row.yaml)
				env = append([]string{"FEED_CONFIG=" + path}, env...)
			}
			code, stdout, stderr := run(t, row.args, env)
			var want strings.Builder
			for _, sentence := range row.want {
				want.WriteString("trap: " + strings.ReplaceAll(sentence, "FILE:", path+":") + "\n")
			}
			if stderr != want.String() {
				t.Errorf("stderr:\n%swant:\n%s", stderr, &want)
			}
			if code != daemon.ExitRefused || stdout != "" {
				t.Errorf("exit code %d, stdout %q", code, stdout)
			}
		})
	}
}

// TestEffectiveConfig holds what `config` shows of each row, beside the defaults.
func TestEffectiveConfig(t *testing.T) {
	password := file(t, "password", "hunter2\n")
	for _, row := range []struct {
		name string
		args []string
		env  []string
		yaml string
		want []string
	}{
		{name: "default", want: []string{
			`port: 5671 # default`, `confirm_timeout: 30s # default`, `in_flight_bytes: 64MiB # default`,
			`maildir_keep: "all" # default`, `secret: "***" # default`, `# url: not set`, `domains: "" # default: any`, `# --port=0 # default`,
		}},
		{name: "YAML over default", yaml: "amqp:\n  port: 1\n", want: []string{`port: 1 # FILE:2: amqp.port`}},
		{name: "variable over YAML", yaml: "amqp:\n  port: 1\n", env: []string{"AMQP_PORT=2"}, want: []string{`port: 2 # AMQP_PORT`}},
		{
			name: "flag over variable", env: []string{"FEED_CONFIG=/nonexistent"}, args: []string{"-f", ""},
			want: []string{`# FEED_CONFIG= # --feed-config`},
		},
		{name: "the last flag counts", args: []string{"-p1", "--port", "2"}, want: []string{`# --port=2 # --port`}},
		{
			name: "flags before and after the command", args: []string{"-v"},
			want: []string{`# --verbose=true # --verbose`, `log_level: "debug" # default`},
		},
		{
			name: "words of YAML 1.1", yaml: "amqp:\n  tls: no\n  check_cert: Off\n",
			want: []string{`tls: false # FILE:2: amqp.tls`, `check_cert: false # FILE:3: amqp.check_cert`},
		},
		{
			name: "bool of a variable", env: []string{"AMQP_TLS=0", "AMQP_CHECK_CERT=YES"},
			want: []string{`tls: false # AMQP_TLS`, `check_cert: true # AMQP_CHECK_CERT`},
		},
		{
			name: "text that looks like something else", yaml: "amqp:\n  vhost: 0123\n  exchange: yes\n  ident: 1e3\n",
			want: []string{`vhost: "0123" # FILE:2: amqp.vhost`, `exchange: "yes" # FILE:3: amqp.exchange`, `ident: "1e3" # FILE:4: amqp.ident`},
		},
		{name: "list of a variable", env: []string{"AMQP_HOST=a, b"}, want: []string{`host: ["a", "b"] # AMQP_HOST`}},
		{name: "list of YAML", yaml: "amqp:\n  host:\n    - a\n    - b\n", want: []string{`host: ["a", "b"] # FILE:2: amqp.host`}},
		{name: "list as one value", yaml: "amqp:\n  host: a,b\n", want: []string{`host: ["a", "b"] # FILE:2: amqp.host`}},
		{name: "list of words", env: []string{"LMTP_MODES=slow,fast"}, want: []string{`modes: ["slow", "fast"] # LMTP_MODES`}},
		{name: "list of numbers", env: []string{"LMTP_CODES=1,2"}, want: []string{`codes: ["1", "2"] # LMTP_CODES`}},
		{name: "alias", yaml: "sensor: &name trap-1\namqp:\n  ident: *name\n", want: []string{`ident: "trap-1" # FILE:3: amqp.ident`}},
		{name: "bytes", env: []string{"AMQP_IN_FLIGHT_BYTES=16 MiB"}, want: []string{`in_flight_bytes: 16MiB # AMQP_IN_FLIGHT_BYTES`}},
		{name: "decimal bytes", env: []string{"AMQP_IN_FLIGHT_BYTES=16MB"}, want: []string{`in_flight_bytes: 15625KiB # AMQP_IN_FLIGHT_BYTES`}},
		{name: "plain bytes", env: []string{"AMQP_IN_FLIGHT_BYTES=1001"}, want: []string{`in_flight_bytes: 1001 # AMQP_IN_FLIGHT_BYTES`}},
		{name: "duration", env: []string{"AMQP_CONFIRM_TIMEOUT=2h0m"}, want: []string{`confirm_timeout: 2h # AMQP_CONFIRM_TIMEOUT`}},
		{name: "float", env: []string{"LMTP_RATIO=0.25"}, want: []string{`ratio: 0.25 # LMTP_RATIO`}},
		{name: "text", env: []string{"LMTP_PEER=::1"}, want: []string{`peer: "::1" # LMTP_PEER`}},
		{name: "empty where that means something", env: []string{"AMQP_QUEUE="}, want: []string{`queue: "" # AMQP_QUEUE: declares none`}},
		{
			name: "empty in YAML where that means something", yaml: "amqp:\n  queue:\n",
			want: []string{`queue: "" # FILE:2: amqp.queue: declares none`},
		},
		{name: "secret", env: []string{"AMQP_SECRET=hunter2"}, want: []string{`secret: "***" # AMQP_SECRET`}},
		{
			name: "secret's file", env: []string{"AMQP_SECRET_FILE=" + password},
			want: []string{`secret_file: "` + password + `" # AMQP_SECRET_FILE`},
		},
		{
			name: "secret's file of YAML", yaml: "amqp:\n  secret_file: " + password + "\n",
			want: []string{`secret_file: "` + password + `" # FILE:2: amqp.secret_file`},
		},
		{
			name: "secret over the file of a lower layer", yaml: "amqp:\n  secret_file: /nonexistent\n", env: []string{"AMQP_SECRET=hunter2"},
			want: []string{`secret: "***" # AMQP_SECRET`},
		},
		{
			name: "over", yaml: "amqp:\n  host: a\n  secret_file: /nonexistent\n  exchange: x\n", env: []string{"AMQP_URL=amqp://a:hunter2@b"},
			want: []string{`url: "***" # AMQP_URL`, `# host: see AMQP_URL`, `# port: see AMQP_URL`, `# secret: see AMQP_URL`, `exchange: "x" # FILE:4: amqp.exchange`},
		},
		{name: "settled by validate", env: []string{"AMQP_ROUTING_KEY=upper"}, want: []string{`routing_key: "UPPER" # AMQP_ROUTING_KEY`}},
		{name: "section without keys", yaml: "amqp:\nlmtp:\n  # listen: x\n", want: []string{`port: 5671 # default`}},
		{name: "empty file", yaml: "# nothing\n", want: []string{`port: 5671 # default`}},
		{name: "empty document", yaml: "---\n", want: []string{`port: 5671 # default`}},
		{
			name: "other services' keys", yaml: "hpfeeds:\n  port: {}\nimap: 7\nbridge: [x]\nmailbox_config: x\nshard_index: 1\nmaildir_max_age: x\n",
			want: []string{`port: 5671 # default`},
		},
		{
			name: "other services' variables", env: []string{"HPFEEDS_PORT=x", "IMAP_TYPO=x", "AMQPX=1", "maildir_keep=x", "MAILDIR=x"},
			want: []string{`port: 5671 # default`},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			env, path := row.env, ""
			if row.yaml != "" {
				path = file(t, "feed.yml", row.yaml)
				env = append([]string{"FEED_CONFIG=" + path}, env...)
			}
			code, stdout, stderr := run(t, append(row.args, "config"), env)
			if code != daemon.ExitOK || stderr != "" {
				t.Fatalf("exit code %d, stderr:\n%s", code, stderr)
			}
			for _, line := range row.want {
				if !hasLine(stdout, strings.ReplaceAll(line, "FILE:", path+":")) {
					t.Errorf("no line %s in\n%s", line, stdout)
				}
			}
		})
	}
}

func hasLine(text, line string) bool {
	for got := range strings.Lines(text) {
		if strings.TrimSpace(got) == line {
			return true
		}
	}
	return false
}

// TestOldFeedFile reads the file that the Python package's readme shows, byte for byte.
func TestOldFeedFile(t *testing.T) {
	code, stdout, stderr := run(t, []string{"-f", "testdata/feed_config.yml", "config"}, nil)
	if code != daemon.ExitOK || stderr != "" {
		t.Fatalf("exit code %d, stderr:\n%s", code, stderr)
	}
	for _, line := range []string{
		`type: "amqp" # testdata/feed_config.yml:2: type`,
		`ident: "reader" # testdata/feed_config.yml:6: amqp.ident`,
		`secret: "***" # testdata/feed_config.yml:7: amqp.secret`,
		`host: ["0.0.0.0"] # testdata/feed_config.yml:8: amqp.host`,
		`port: 5671 # testdata/feed_config.yml:9: amqp.port`,
		`vhost: "/" # testdata/feed_config.yml:10: amqp.vhost`,
		`tls: true # testdata/feed_config.yml:13: amqp.tls`,
		`check_cert: false # testdata/feed_config.yml:15: amqp.check_cert`,
	} {
		if !hasLine(stdout, line) {
			t.Errorf("no line %s in\n%s", line, stdout)
		}
	}
}

// TestConfigIsAFeedFile feeds what `config` prints back in: the values must be the same.
func TestConfigIsAFeedFile(t *testing.T) {
	values := func(printed string) string {
		var kept strings.Builder
		for line := range strings.Lines(printed) {
			value, _, _ := strings.Cut(line, " # ")
			if !strings.HasPrefix(strings.TrimSpace(value), "# ") {
				kept.WriteString(strings.TrimSpace(value) + "\n")
			}
		}
		return kept.String()
	}
	_, first, _ := run(t, []string{"config"}, []string{
		"AMQP_HOST=a,b", "AMQP_VHOST=a\"\\\n\u00e9\u202e#", "AMQP_CONFIRM_TIMEOUT=90m", "LMTP_DOMAINS=x.example",
	})
	code, second, stderr := run(t, []string{"-f", file(t, "feed.yml", first), "config"}, nil)
	if code != daemon.ExitOK {
		t.Fatalf("refused:\n%s\nof\n%s", stderr, first)
	}
	if values(first) != values(second) {
		t.Errorf("printed\n%s\nread back\n%s", first, second)
	}
}

// TestHelpNamesEverySetting compares both forms of the documentation with what is known of the struct.
func TestHelpNamesEverySetting(t *testing.T) {
	_, help, _ := run(t, []string{"-h"}, nil)
	_, markdown, _ := run(t, []string{"config", "--markdown"}, nil)
	for _, text := range []string{help, markdown} {
		for _, want := range []string{
			"-f, --feed-config", "-v, --verbose", "-p, --port", "ADMIN_ADDR", "MAILDIR_KEEP", "AMQP_SECRET_FILE", "64MiB", "30s",
			"(any)", "(the host name)", "One of: json, console.", "Empty: declares none.", "RabbitMQ", "Where mail comes in",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in\n%s", want, text)
			}
		}
		if strings.Contains(text, "default-password") {
			t.Errorf("a default secret shows in\n%s", text)
		}
	}
	for _, want := range []string{"A service for tests.", " type: ", "healthcheck [--url URL]", "show [--upper] [ARGUMENT…]", "Exit codes: 0 a clean stop"} {
		if !strings.Contains(help, want) {
			t.Errorf("%q is missing in\n%s", want, help)
		}
	}
	for _, want := range []string{"| `AMQP_PORT` | `amqp.port` |  | `5671` | Port of the broker. |", "|  | `type` |  | (amqp) |"} {
		if !strings.Contains(markdown, want) {
			t.Errorf("%q is missing in\n%s", want, markdown)
		}
	}
	for _, args := range [][]string{{"help"}, {"--help"}, {"config", "-h"}} {
		if code, stdout, _ := run(t, args, []string{"AMQP_PORT=broken"}); code != daemon.ExitOK || stdout != help {
			t.Errorf("%v: exit code %d, stdout\n%s", args, code, stdout)
		}
	}
	if code, stdout, _ := run(t, []string{"version"}, []string{"AMQP_PORT=broken"}); code != daemon.ExitOK || stdout != "trap dev\n" {
		t.Errorf("version: exit code %d, stdout %q", code, stdout)
	}
}

func TestCommandGetsItsArguments(t *testing.T) {
	code, stdout, stderr := run(t, []string{"show", "a", "-v", "--upper", "b"}, []string{"AMQP_HOST=x"})
	if want := `{"args":["A","B"],"host":["x"],"level":"debug"}` + "\n"; code != daemon.ExitOK || stdout != want {
		t.Errorf("exit code %d, stdout %s, want %s, stderr %s", code, stdout, want, stderr)
	}
	code, stdout, _ = run(t, []string{"show", "-h"}, []string{"AMQP_PORT=broken"})
	if want := "trap show [--upper] [ARGUMENT…]: show the configuration to a test\n\n      --upper[=true|false]   in capitals\n"; code != daemon.ExitOK || !strings.HasPrefix(stdout, want) {
		t.Errorf("exit code %d, help\n%s", code, stdout)
	}
	if code, stdout, _ := run(t, []string{"show"}, []string{"AMQP_PORT=x"}); code != daemon.ExitRefused || stdout != "" {
		t.Errorf("with a broken configuration: exit code %d, stdout %s", code, stdout)
	}
}
