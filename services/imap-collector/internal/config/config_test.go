package config_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/config"
	"spamtraps.internal/libs/daemon"
)

// load has the configuration loaded as a command would get it.
func load(t *testing.T, args, env []string) (cfg config.Config, code int, stderr string) {
	t.Helper()
	var errs bytes.Buffer
	svc := daemon.Service[config.Config]{
		Name: "imap-collector", Defaults: config.Defaults, Prefixes: []string{"MAILBOX", "SHARD"},
		Commands: []daemon.Command[config.Config]{{Name: "take", Run: func(_ context.Context, _ daemon.Process, got config.Config, _ []string) int {
			cfg = got
			return daemon.ExitOK
		}}},
	}
	code = daemon.Main(svc, daemon.Process{Args: append([]string{"take"}, args...), Env: env, Stdout: &bytes.Buffer{}, Stderr: &errs})
	return cfg, code, errs.String()
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mailboxes.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const one = "IMAP_HOST=imap.example IMAP_USERNAME=anna IMAP_PASSWORD=hunter2"

// The old package's command line, with its two files.
func TestOldCommandLine(t *testing.T) {
	boxes := file(t, "- {username: a, password: b, protocol: imap, host: h, port: 993}\n")
	feed := file(t, "type: amqp\namqp: {ident: x, secret: y, host: z, check_cert: False}\n")
	for _, row := range []struct {
		args       []string
		fetch      account.FetchMode
		after      account.AfterKind
		continuous bool
	}{
		{nil, account.FetchUnseen, account.AfterSeen, false},
		{[]string{"-a"}, account.FetchAll, account.AfterSeen, false},
		{[]string{"-d", "-c", "-v"}, account.FetchUnseen, account.AfterDelete, true},
		{[]string{"-adc"}, account.FetchAll, account.AfterDelete, true},
		{[]string{"--fetch-all", "--delete", "--continuous-fetch", "--verbose"}, account.FetchAll, account.AfterDelete, true},
	} {
		cfg, code, stderr := load(t, append(row.args, "-f", feed, "-m", boxes), nil)
		if code != daemon.ExitOK || len(cfg.Accounts) != 1 {
			t.Fatalf("%q: exit code %d, %s", row.args, code, stderr)
		}
		a := cfg.Accounts[0]
		if a.Fetch != row.fetch || a.After.Kind != row.after || cfg.IMAP.Continuous != row.continuous || cfg.AMQP.Ident != "x" {
			t.Errorf("%q: %+v", row.args, cfg)
		}
	}
	cfg, code, stderr := load(t, []string{"--feed-config", feed, "--mailbox-config", boxes}, nil)
	if code != daemon.ExitOK || len(cfg.Accounts) != 1 {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestOneMailboxFromTheEnvironment(t *testing.T) {
	cfg, code, stderr := load(t, nil, append(strings.Fields(one),
		"IMAP_PORT=143", "IMAP_FOLDERS=INBOX,Lists.%", "IMAP_AFTER=move:Done", "IMAP_POLL_INTERVAL=1m", "IMAP_EXPUNGE=always", "IMAP_ID=trap-1", "IMAP_STATE=/data/state"))
	if code != daemon.ExitOK {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	a := cfg.Mine()[0]
	if a.Host != "imap.example" || a.Port != 143 || a.TLS != account.TLSStartTLS || a.ID != "trap-1" || a.Name != "anna@imap.example" ||
		!slices.Equal(a.Folders, []string{"INBOX", "Lists.%"}) || a.After != (account.After{Kind: account.AfterMove, Folder: "Done"}) ||
		a.PollInterval != time.Minute || !a.Expunge || !a.CheckCert || a.MaxMessageBytes != 16<<20 {
		t.Errorf("%+v", a)
	}
}

func TestEntriesOverrideSettings(t *testing.T) {
	boxes := file(t, "- {username: a, password: b, host: h}\n- {username: b, password: b, host: h, after: seen, folders: X, check_cert: yes, max_message_bytes: 1KiB}\n"+
		"- {username: c, password: b, host: h, enabled: no}\n")
	cfg, code, stderr := load(t, []string{"-d", "-m", boxes}, []string{"IMAP_CHECK_CERT=no", "IMAP_FOLDERS=Y", "AMQP_MAX_MESSAGE_BYTES=1MiB"})
	if code != daemon.ExitOK || len(cfg.Accounts) != 3 || len(cfg.Mine()) != 2 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	a, b := cfg.Accounts[0], cfg.Accounts[1]
	if a.After.Kind != account.AfterDelete || a.CheckCert || a.Folders[0] != "Y" || a.MaxMessageBytes != 1<<20 {
		t.Errorf("%+v", a)
	}
	if b.After.Kind != account.AfterSeen || !b.CheckCert || b.Folders[0] != "X" || b.MaxMessageBytes != 1<<10 {
		t.Errorf("%+v", b)
	}
}

func TestRefusals(t *testing.T) {
	boxes := file(t, "- {username: a, password: hunter2, host: h, port: none}\n- {username: b}\n")
	good := file(t, "- {username: a, password: hunter2, host: h}\n")
	for _, row := range []struct {
		name string
		args []string
		env  string
		want []string
	}{
		{"nothing", nil, "", []string{"MAILBOX_CONFIG must name a file with mailboxes (-m), or IMAP_HOST the server of one"}},
		{"no file", []string{"-m", "/none.yml"}, "", []string{"/none.yml cannot be read: no such file or directory"}},
		{"mailboxes", []string{"-m", boxes}, "SHARD_INDEX=1", []string{
			"SHARD_INDEX must be between 0 and 0, because SHARD_COUNT is 1, not 1",
			boxes + `:1: port must be a whole number, not "none"`, boxes + ":2: host must be given",
			boxes + ":2: password must be given, or password_file, or oauth",
		}},
		{"both", []string{"-m", good}, one, []string{
			"IMAP_HOST is for one mailbox without a file, and MAILBOX_CONFIG names a file of mailboxes: choose one",
			"IMAP_USERNAME is for one mailbox without a file, and MAILBOX_CONFIG names a file of mailboxes: choose one",
			"IMAP_PASSWORD is for one mailbox without a file, and MAILBOX_CONFIG names a file of mailboxes: choose one",
		}},
		{"one without a user", nil, "IMAP_HOST=h", []string{"IMAP_USERNAME must be given", "IMAP_PASSWORD must be given, or password_file, or oauth"}},
		{"flags and variables", []string{"-a", "-d"}, one + " IMAP_FETCH=unseen IMAP_AFTER=move:X", []string{
			"--fetch-all contradicts IMAP_FETCH, which is unseen", "--delete contradicts IMAP_AFTER, which is move:X",
		}},
		{"new without state", nil, one + " IMAP_FETCH=new", []string{"IMAP_FETCH can be new only with IMAP_STATE, a folder to remember in what was published"}},
		{"sizes", nil, one + " IMAP_MAX_MESSAGE_BYTES=17MiB", []string{
			"IMAP_MAX_MESSAGE_BYTES must be at most AMQP_MAX_MESSAGE_BYTES (16777216), or mail is fetched that the broker never takes, not 17825792",
		}},
		{"stale", nil, one + " IMAP_STALE_AFTER=5m", []string{
			"IMAP_POLL_INTERVAL must be less than IMAP_STALE_AFTER (5m0s), or the mailbox counts as stale between two looks, not 5m0s",
		}},
		{"memory", nil, one + " IMAP_MEMORY=16MiB", []string{"IMAP_MEMORY must be at least twice IMAP_MAX_MESSAGE_BYTES (33554432), not 16777216"}},
		{"bounds", nil, one + " IMAP_PARALLEL=0 IMAP_LOGIN_RATE=0 IMAP_MAX_PER_HOST=-1 IMAP_STALE_AFTER=-5m SHARD_COUNT=0", []string{
			"IMAP_MAX_PER_HOST must not be negative, as -1 is", "IMAP_LOGIN_RATE must be more than 0", "IMAP_PARALLEL must be between 1 and 1000, not 0",
			"IMAP_STALE_AFTER must be more than 0s", "SHARD_COUNT must be at least 1, not 0",
		}},
		{"unknown", nil, one + " IMAP_POLL=1m SHARDS=2 SHARD_NUMBER=1 MAILBOX_FILE=x", []string{
			"IMAP_POLL is no setting: did you mean IMAP_PORT?", "MAILBOX_FILE is no setting", "SHARD_NUMBER is no setting",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, code, stderr := load(t, row.args, strings.Fields(row.env))
			var want strings.Builder
			for _, sentence := range row.want {
				want.WriteString("imap-collector: " + sentence + "\n")
			}
			if code != daemon.ExitRefused || stderr != want.String() || strings.Contains(stderr, "hunter2") {
				t.Errorf("exit code %d, stderr:\n%swant:\n%s", code, stderr, &want)
			}
		})
	}
}
