package daemon_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/secret"
)

// box is an entry of a list in these tests.
type box struct {
	Host     string        `env:"HOST" desc:"Where."`
	Port     int           `env:"PORT" desc:"Which port."`
	TLS      bool          `env:"TLS" desc:"Whether."`
	Mode     string        `env:"MODE" oneof:"fast slow" desc:"How."`
	Folders  []string      `env:"FOLDERS" desc:"Which."`
	Password secret.Secret `env:"PASSWORD" desc:"Password."`
	Every    time.Duration `env:"EVERY" desc:"How often."`
	Token    token         `section:"TOKEN" desc:"Token"`
}

func (b *box) Validate(bad func(name, problem string)) {
	if b.Port == 0 {
		bad("PORT", "must be given")
	}
	if b.Host == "nowhere" {
		bad("TOKEN_URL", "is of no use")
	}
	if b.Host == "odd" {
		bad("this", "is odd")
	}
}

type token struct {
	URL    string        `env:"URL" desc:"Where from."`
	Secret secret.Secret `env:"SECRET" desc:"Secret."`
}

func (t *token) Validate(bad func(name, problem string)) {
	if t.URL == "ftp" {
		bad("URL", "must be https")
	}
}

func TestList(t *testing.T) {
	password := file(t, "password", "hunter2\n")
	path := file(t, "boxes.yml", "---\n- host: a\n  port: 1\n  tls: No\n  folders: [x, y]\n  password: 0123\n- {host: b, port: 2, every: 5m, token: {url: x, secret_file: "+
		password+"}}\n-\n  host: &c c\n  port: 3\n  mode: slow\n  password: *c\n")
	list := daemon.ReadList(path, func() box { return box{TLS: true, Mode: "fast"} })
	if problems := list.Problems(); len(problems) != 0 {
		t.Fatalf("problems: %q", problems)
	}
	if len(list.Items) != 3 {
		t.Fatalf("%d items", len(list.Items))
	}
	a, b, c := list.Items[0], list.Items[1], list.Items[2]
	if a.Value.TLS || a.Value.Mode != "fast" || !slices.Equal(a.Value.Folders, []string{"x", "y"}) || reveal(t, a.Value.Password) != "0123" {
		t.Errorf("first item: %+v", a.Value)
	}
	if !b.Value.TLS || b.Value.Every != 5*time.Minute || reveal(t, b.Value.Token.Secret) != "hunter2" || b.Line != 7 {
		t.Errorf("second item: %+v in line %d", b.Value, b.Line)
	}
	if c.Value.Mode != "slow" || reveal(t, c.Value.Password) != "c" || c.Line != 9 {
		t.Errorf("third item: %+v in line %d", c.Value, c.Line)
	}
	if !b.Has("TOKEN_URL") || b.Has("MODE") || !c.Has("MODE") {
		t.Error("Has does not know what an entry says itself")
	}
	c.Bad("MODE", "must not be slow")
	c.Bad("EVERY", "must be given")
	want := []string{path + ":11: mode must not be slow", path + ":9: every must be given"}
	if problems := list.Problems(); !slices.Equal(problems, want) || c.OK() || !a.OK() {
		t.Errorf("problems: %q, want %q", problems, want)
	}
}

func reveal(t *testing.T, s secret.Secret) string {
	t.Helper()
	text, err := s.Reveal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestListRefusals(t *testing.T) {
	for _, row := range []struct {
		name, yaml string
		want       []string
	}{
		{"a map", "host: a\n", []string{`FILE:1: must hold a list of maps, each beginning with "- ", not a map`}},
		{"a list of words", "- a\n-\n", []string{`FILE:1: must be a map of settings, not a single value`, `FILE:2: must be a map of settings, not nothing`}},
		{"unknown key", "- prot: 1\n  port: 1\n", []string{`FILE:1: prot is no setting: did you mean port?`}},
		{"a feed file's key", "- port: 1\n  amqp: {}\n", []string{`FILE:2: amqp is no setting`}},
		{"unknown key of a section", "- port: 1\n  token: {ur: x}\n", []string{`FILE:2: token.ur is no setting: did you mean token.url?`}},
		{"twice", "- port: 1\n  port: 2\n", []string{`FILE:2: port is there twice, first in line 1`}},
		{"bad value", "- port: x\n", []string{`FILE:1: port must be a whole number, not "x"`}},
		{"not given", "- host: a\n", []string{`FILE:1: port must be given`}},
		{"empty secret", "- port: 1\n  password:\n", []string{`FILE:2: password is empty: give a value or leave it out`}},
		{"secret with an exclamation mark", "- port: 1\n  password: !hunter2\n", []string{`FILE:2: password begins with ! and so must be in quotes`}},
		{"secret's file missing", "- port: 1\n  password_file: /none\n", []string{`FILE:2: password_file names a file that cannot be read: open /none: no such file or directory`}},
		{"of a section", "- port: 1\n  token:\n    url: ftp\n", []string{`FILE:3: token.url must be https`}},
		{"of a section, from the whole", "- port: 1\n\n- port: 1\n  host: nowhere\n", []string{`FILE:3: token.url is of no use`}},
		{"of no setting", "- port: 1\n- port: 1\n  host: odd\n", []string{`FILE:2: this is odd`}},
		{"no YAML", "- host: hunter2: b\n", []string{`FILE:1: is not YAML: mapping values are not allowed in this context`}},
		{"all at once", "- port: x\n  tls: x\n- x\n- host: nowhere\n", []string{
			`FILE:3: must be a map of settings, not a single value`, `FILE:1: port must be a whole number, not "x"`, `FILE:2: tls must be true or false, not "x"`,
			`FILE:4: port must be given`, `FILE:4: token.url is of no use`,
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := file(t, "boxes.yml", row.yaml)
			list := daemon.ReadList(path, func() box { return box{} })
			var want []string
			for _, sentence := range row.want {
				want = append(want, strings.ReplaceAll(sentence, "FILE:", path+":"))
			}
			if problems := list.Problems(); !slices.Equal(problems, want) {
				t.Errorf("problems: %q, want %q", problems, want)
			}
		})
	}
	list := daemon.ReadList("/nonexistent.yml", func() box { return box{} })
	if problems := list.Problems(); !slices.Equal(problems, []string{"/nonexistent.yml cannot be read: no such file or directory"}) {
		t.Errorf("problems: %q", problems)
	}
}
